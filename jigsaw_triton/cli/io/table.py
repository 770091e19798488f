"""Tables: with rules on a terminal, as plain columns elsewhere."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

_NUMBER = re.compile(r"[-+]?[0-9][0-9.,]*(e[-+]?[0-9]+)?%?|-?")
_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}
"""Word in a cell -> its style."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table. Columns of numbers are right-aligned.

    Attributes:
        header: Names of the columns.
        rows: Cells of each row, as many as there are columns.
        title: Text above the table; empty for none.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""

    @classmethod
    def of(cls, header: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> "Table":
        """Returns a table of any values, converted by `str`; None becomes an empty cell."""
        cells = tuple(tuple("" if value is None else str(value) for value in row) for row in rows)
        return cls(tuple(header), cells, title)

    def rich(self) -> RichTable:
        """Returns the table for a terminal."""
        table = RichTable(
            box=box.SIMPLE_HEAD, title=self.title or None, title_justify="left", title_style="bold", pad_edge=False
        )
        for index, name in enumerate(self.header):
            table.add_column(name, justify="right" if self._numeric(index) else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(cell, _STYLES.get(cell, "")) for cell in row))
        return table

    def plain(self) -> str:
        """Returns the table for pipes and files: one line for each row, columns two spaces apart."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[index]) for line in lines) for index in range(len(self.header))]
        right = [self._numeric(index) for index in range(len(self.header))]
        text = "".join(
            "  ".join(
                cell.rjust(width) if numeric else cell.ljust(width)
                for cell, width, numeric in zip(line, widths, right, strict=True)
            ).rstrip()
            + "\n"
            for line in lines
        )
        return (f"{self.title}\n" if self.title else "") + text

    def _numeric(self, index: int) -> bool:
        cells = [row[index] for row in self.rows]
        return any(cells) and all(_NUMBER.fullmatch(cell) is not None for cell in cells)
