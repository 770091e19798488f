"""Puts the generated parts into pages."""

import re
from collections.abc import Callable

from docs.generators import columns, errors, keys, options, python

GENERATORS: dict[str, Callable[..., str]] = {
    "columns": columns.columns,
    "errors": errors.classes,
    "keys": keys.keys,
    "messages": errors.all_messages,
    "options": options.options,
    "python": python.members,
}
"""Name in the comments -> function that returns the part."""

MARK = re.compile(r"^<!-- generated: (\w+)((?: \w+)*) -->$", re.MULTILINE)
"""Comment that stands for a generated part: the name of its generator, and the arguments."""


def expand(markdown: str) -> str:
    """Returns the text of a page with its generated parts.

    Args:
        markdown: Text of the page.
    """
    return MARK.sub(lambda mark: GENERATORS[mark[1]](*mark[2].split()), markdown)
