"""Names of chains of tasks that a worker executes in one call, and of their variants: `first~second`.

Names of tasks and variants cannot contain `~`. It needs no encoding in a URL, which Triton would not decode.
"""

from collections.abc import Iterable

_JOIN = "~"


def joined(names: Iterable[str]) -> str:
    """Joins the names of a chain's tasks, or of their variants, to that of the chain; a single name stays as it is."""
    return _JOIN.join(names)


def members(name: str) -> tuple[str, ...]:
    """Splits the name of a chain into the names that `joined` joined."""
    return tuple(name.split(_JOIN))
