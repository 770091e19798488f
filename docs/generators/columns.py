"""Columns of profiles.csv, from the classes of its rows."""

import inspect
import re

from docs.generators.markdown import code, plain, table
from jigsaw_triton.profiles.read import HEADER, OPTIONAL
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow

_ATTRIBUTE = re.compile(r"^    (\w+): (.+(?:\n        .+)*)", re.MULTILINE)


def columns() -> str:
    """Returns a table of the columns of profiles.csv, in the order of the file."""
    found = dict(found for kind in (ProfileKey, ProfileRow) for found in _ATTRIBUTE.findall(inspect.getdoc(kind) or ""))
    rows = [(code(name), need, plain(_of_file(found[name]))) for name, need in _columns()]
    return table(("column", "need", "meaning"), rows)


def _of_file(text: str) -> str:
    """Returns the description of an attribute as that of a column: a cell in place of None is empty."""
    return " ".join(text.split()).replace("None if", "Empty if")


def _columns() -> list[tuple[str, str]]:
    return [*((name, "required") for name in HEADER), *((name, "optional") for name in OPTIONAL)]
