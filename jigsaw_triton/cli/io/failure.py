"""Errors of commands: as text on stderr, or as JSON on stdout, and their exit codes."""

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
"""Exit code if the command line is wrong."""

INTERNAL = 1
"""Exit code of unexpected errors."""


@dataclass(frozen=True, slots=True)
class ErrorFormat:
    """Form of errors. It is known even if the command line is wrong.

    Attributes:
        json: True if errors go to stdout as JSON.
        debug: True if unexpected errors are printed with their traceback.
    """

    json: bool = False
    debug: bool = False

    @classmethod
    def of(cls, args: Sequence[str], environment: Mapping[str, str]) -> Self:
        """Reads the form from a command line that may be wrong, and from the environment."""
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
    """An error as it is printed.

    Attributes:
        message: Description of the problem.
        where: File and line, option or address that the error is about.
        hint: Remedy.
        diagnostics: Mistakes in input files.
        reasons: Reasons why no plan is feasible.
        status: Exit code.
        infeasible: Error whose conflict is added to the JSON, if no plan is feasible.
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
        """Returns an error in printable form."""
        match error:
            case SpecError():
                return cls(_mistake_count(error.diagnostics), diagnostics=error.diagnostics, status=error.exit_code)
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
            hint="this is a bug in jigsaw-triton: run the command again with --debug, and report its output",
        )


def report(error: Exception, form: ErrorFormat) -> int:
    """Prints an error and returns the exit code."""
    failure = Failure.of(error)
    expected = isinstance(error, (JigsawError, click.ClickException))
    if form.debug and not expected:
        traceback.print_exception(error)
    if form.json:
        click.echo(json.dumps(_document(failure), indent=2))
    else:
        _print(failure)
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


def _print(failure: Failure) -> None:
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    for diagnostic in failure.diagnostics:
        click.echo(str(diagnostic), err=True)
    place = f"{failure.where}: " if failure.where else ""
    click.echo(click.style("error:", fg="red", bold=True) + f" {place}{failure.message}", err=True, color=colour)
    for reason in failure.reasons:
        click.echo(f"  {reason}", err=True)
    if failure.hint:
        click.echo(click.style("hint:", bold=True) + f" {failure.hint}", err=True, color=colour)


def _mistake_count(diagnostics: Sequence[Diagnostic]) -> str:
    count = len(diagnostics)
    return f"{count} mistake{'s' if count > 1 else ''} in the input"
