"""Where results and messages go: results to stdout, everything else to stderr; colours on a terminal alone."""

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
from jigsaw_triton.gpus.board import Row

FORMS = ("table", "json")
_PIPED_COLUMNS = 100

View = str | Text | Table
"""What a result is shown as: lines of text or a table."""

Tell = Callable[[str], None]
"""Says in a line what is being done."""


class Output:
    """The output of one command.

    Args:
        form: What `-o` asked for.
    """

    def __init__(self, form: str = "table") -> None:
        self.form = form
        self._stdout = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
        self._stderr = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)

    @property
    def json(self) -> bool:
        """Whether the result is to be JSON."""
        return self.form == "json"

    @property
    def width(self) -> int:
        """Columns to draw in."""
        return self._stdout.width if self._stdout.is_terminal else _PIPED_COLUMNS

    def result(self, data: Any, *view: View) -> None:
        """Prints what the command found.

        Args:
            data: As JSON, printed where `-o json` asks for it.
            view: What is printed otherwise, one below the other.
        """
        if self.json:
            self.raw(json.dumps(data, indent=2) + "\n")
            return
        for part in view:
            if isinstance(part, Table):
                self._table(part)
            else:
                self._stdout.print(part, soft_wrap=True)

    def raw(self, text: str) -> None:
        """Prints text as it is: a document of some format."""
        click.echo(text, nl=False)

    def note(self, text: str) -> None:
        """Tells something beside the result."""
        self._stderr.print(text, style="dim", soft_wrap=True)

    def warn(self, text: str) -> None:
        """Tells something that the user should not overlook."""
        self._stderr.print(Text.assemble(("warning: ", "bold yellow"), text), soft_wrap=True)

    @contextmanager
    def working(self, doing: str) -> Iterator[Tell]:
        """While something takes long: a line that changes on a terminal, else a line for each thing said.

        Args:
            doing: What is said first.
        """
        if self._stderr.is_terminal:
            with self._stderr.status(doing) as status:
                yield status.update
        else:
            self.note(doing)
            yield self.note

    def _table(self, table: Table) -> None:
        if self._stdout.is_terminal:
            self._stdout.print(table.rich())
        else:
            self.raw(table.plain())


def drawing(rows: Iterable[Row]) -> Text:
    """Rows of a drawing with their colours."""
    lines = [Text.assemble(*row) for row in rows]
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def write_file(path: Path, text: str) -> None:
    """Writes a file that the user asked for; its folder is made.

    Raises:
        InputError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the file cannot be written ({error.strerror})", where=str(path), hint="choose another place"
        ) from error


def figures(value: float, digits: int = 3) -> str:
    """A number with as many digits as are worth reading: `0.031`, `12.5`, `1480`."""
    if value >= 10 ** (digits - 1):
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def listed(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1]))) if items else "none"
