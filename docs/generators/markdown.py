"""Markdown of tables and code."""

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\*<>\[\]_|]|&(?!emsp;))")
_SPANS = re.compile(r"(`[^`]*`)")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table.

    Args:
        header: Titles of the columns.
        rows: Cells of each row, as Markdown.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def code(text: str) -> str:
    """Returns a text as code. In tables of the site, bars inside it divide no cells."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def plain(text: str) -> str:
    """Returns a text whose characters mean nothing in Markdown, except that backticks enclose code."""
    parts = _SPANS.split(text)
    return "".join(code(part[1:-1]) if index % 2 else _SPECIAL.sub(r"\\\1", part) for index, part in enumerate(parts))
