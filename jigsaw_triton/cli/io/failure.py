"""How a command that failed says so: on stderr in words, or as JSON on stdout; and with which exit code."""

import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import click

from jigsaw_triton.errors import Diagnostic, InfeasibleError, JigsawError, SpecError

USAGE = 2
INTERNAL = 1


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a failure needs to know of the command line, also where the command line is what is wrong.

    Attributes:
        json: Failures go to stdout as JSON.
        debug: Unexpected failures come with their traceback.
    """

    json: bool = False
    debug: bool = False

    @classmethod
    def of(cls, args: Sequence[str], environment: Mapping[str, str]) -> Self:
        """Those of a command line that may not have been understood."""
        form = environment.get("JIGSAW_OUTPUT", "")
        for index, arg in enumerate(args):
            if arg in ("-o", "--output"):
                form = "".join(args[index + 1 : index + 2])
            elif arg.startswith("--output="):
                form = arg.removeprefix("--output=")
            elif arg.startswith("-o"):
                form = arg.removeprefix("-o").removeprefix("=")
        debug = environment.get("JIGSAW_DEBUG", "").lower() not in ("", "0", "false", "no", "off")
        return cls(json=form == "json", debug=debug or "--debug" in args)


@dataclass(frozen=True, slots=True)
class Failure:
    """What is told of an error, and the exit code.

    Attributes:
        message: What is wrong; empty where the diagnostics say all.
        where: The place.
        hint: What to do about it.
        diagnostics: Mistakes in input files.
        reasons: Why no plan is feasible.
        status: Exit code.
        infeasible: What else a JSON document tells where no plan is feasible.
    """

    message: str
    where: str = ""
    hint: str = ""
    diagnostics: tuple[Diagnostic, ...] = ()
    reasons: tuple[str, ...] = ()
    status: int = INTERNAL
    infeasible: InfeasibleError | None = None

    @classmethod
    def of(cls, error: Exception) -> Self:
        """What is told of this error."""
        match error:
            case SpecError():
                return cls(_mistakes(error.diagnostics), diagnostics=error.diagnostics, status=error.exit_code)
            case InfeasibleError():
                return cls(
                    "no plan is feasible",
                    error.where,
                    error.hint,
                    reasons=error.reasons,
                    status=error.exit_code,
                    infeasible=error,
                )
            case JigsawError():
                return cls(error.message, error.where, error.hint, status=error.exit_code)
            case click.UsageError():
                command = error.ctx.command_path if error.ctx is not None else "jigsaw-triton"
                return cls(error.format_message().rstrip("."), hint=f"see `{command} --help`", status=USAGE)
            case click.ClickException():
                return cls(error.format_message(), status=error.exit_code)
        return cls(
            f"unexpected {type(error).__name__}: {error}",
            hint="this is a defect of jigsaw-triton: run it again with --debug and report what it prints",
        )


def report(error: Exception, wishes: Wishes) -> int:
    """Tells of an error; the exit code."""
    failure = Failure.of(error)
    expected = isinstance(error, (JigsawError, click.ClickException))
    if wishes.debug and not expected:
        traceback.print_exception(error)
    if wishes.json:
        click.echo(json.dumps(_document(failure), indent=2))
    else:
        _tell(failure)
    return failure.status


def _document(failure: Failure) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if (error := failure.infeasible) is not None:
        document = {
            "status": "infeasible",
            "reasons": error.reasons,
            "conflict": error.conflict,
            "nearest": error.nearest,
            "unsettled": error.unsettled,
        }
    return document | {
        "error": {
            "message": failure.message,
            "where": failure.where,
            "hint": failure.hint,
            "diagnostics": [asdict(diagnostic) for diagnostic in failure.diagnostics],
            "reasons": failure.reasons,
        }
    }


def _tell(failure: Failure) -> None:
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    for diagnostic in failure.diagnostics:
        click.echo(str(diagnostic), err=True)
    place = f"{failure.where}: " if failure.where else ""
    click.echo(click.style("error:", fg="red", bold=True) + f" {place}{failure.message}", err=True, color=colour)
    for reason in failure.reasons:
        click.echo(f"  {reason}", err=True)
    if failure.hint:
        click.echo(click.style("hint:", bold=True) + f" {failure.hint}", err=True, color=colour)


def _mistakes(diagnostics: Sequence[Diagnostic]) -> str:
    count = len(diagnostics)
    return f"{count} mistake{'s' if count > 1 else ''} in the input"
