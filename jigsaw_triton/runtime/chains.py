"""How a chain of tasks is named that a worker does in one call: `first~second`, and its variants likewise.

No name of a task or variant has that sign, and clients write it into a URL as it is: Triton decodes none.
"""

from collections.abc import Iterable

_JOIN = "~"


def joined(names: Iterable[str]) -> str:
    """The chain's name, or its variant's, by those of its tasks in order; of one task its own."""
    return _JOIN.join(names)


def members(name: str) -> tuple[str, ...]:
    """The names that `joined` made one of."""
    return tuple(name.split(_JOIN))
