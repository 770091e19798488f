"""Output of commands: results go to stdout, messages to stderr. Only terminals get colours."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.errors import InputError
from jigsaw_triton.finite_json import finite
from jigsaw_triton.gpus.board import Row

FORMS = ("table", "json")
_PIPED_COLUMNS = 100

View = str | Text | Table
"""Part of a result: lines of text or a table."""

ReportProgress = Callable[[str], None]
"""Function that prints a line about the work in progress."""


class Output:
    """The output of one command.

    Args:
        form: Form of the result: `table`, `json`, or another that the command has.
    """

    def __init__(self, form: str = "table") -> None:
        self.form = form
        self._stdout = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
        self._stderr = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)

    @property
    def json(self) -> bool:
        """True if the result is printed as JSON."""
        return self.form == "json"

    @property
    def interactive(self) -> bool:
        """True if a person can be asked: input and messages are on a terminal."""
        return self._stderr.is_terminal and sys.stdin.isatty()

    @property
    def width(self) -> int:
        """Number of columns for drawings."""
        return self._stdout.width if self._stdout.is_terminal else _PIPED_COLUMNS

    def result(self, data: Any, *view: View) -> None:
        """Prints the result of the command.

        Args:
            data: Result for `-o json`.
            view: Parts of the result for people, printed one below the other.
        """
        if self.json:
            self.raw(json.dumps(finite(data), indent=2) + "\n")
            return
        for part in view:
            if isinstance(part, Table):
                self._table(part)
            else:
                self._stdout.print(part, soft_wrap=True)

    def raw(self, text: str) -> None:
        """Prints a document unchanged."""
        click.echo(text, nl=False)

    def note(self, text: str) -> None:
        """Prints progress or a minor fact."""
        self._stderr.print(text, style="dim", soft_wrap=True)

    def warn(self, text: str) -> None:
        """Prints something that the user should not overlook."""
        self._stderr.print(Text.assemble(("warning: ", "bold yellow"), text), soft_wrap=True)

    @contextmanager
    def working(self, activity: str) -> Iterator[ReportProgress]:
        """Shows that work is in progress: as one line that changes on a terminal, else as a line for each report.

        Args:
            activity: First report.

        Yields:
            Function that reports progress.
        """
        if self._stderr.is_terminal:
            with self._stderr.status(activity) as status:
                yield status.update
        else:
            self.note(activity)
            yield self.note

    def _table(self, table: Table) -> None:
        if self._stdout.is_terminal:
            self._stdout.print(table.rich())
        else:
            self.raw(table.plain())


def drawing(rows: Iterable[Row]) -> Text:
    """Returns rows of a drawing as coloured text."""
    lines = [Text.assemble(*row) for row in rows]
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def write_file(path: Path, text: str) -> None:
    """Writes a file that the user asked for. Its folder is created if it is missing.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the file cannot be written ({error.strerror})", where=str(path), hint="choose another path"
        ) from error


def figures(value: float, digits: int = 3) -> str:
    """Returns a number with as many digits as are worth reading: `0.031`, `12.5`, `1480`."""
    if value >= 10 ** (digits - 1):
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def listed(items: Sequence[str]) -> str:
    """Returns `a, b and c`; `none` for no items."""
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1]))) if items else "none"
