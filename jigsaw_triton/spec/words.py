"""Names, and phrases that messages about users' files share."""

import difflib
from collections.abc import Iterable
from typing import Any

LOCAL_NODE = "local"
"""Name of the controller's own machine: the node of a cluster that names none, and of all servers without a GPU."""

NAME_PATTERN = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"
"""Pattern of the names of graphs, tasks, tensors, variants and nodes."""

_SHOWN = 60


def nearest(word: str, known: Iterable[str], what: str = "known") -> str:
    """Returns a hint for an unknown word: the known words that begin with it, else the most similar one, else all.

    Args:
        word: Word that the user wrote.
        known: Words that are valid there.
        what: Title of the list of all known words: `known tasks`.
    """
    by_fold = {name.casefold(): name for name in sorted(known)}
    fold = word.casefold()
    close = [name for name in by_fold if len(fold) > 1 and name.startswith(fold)]
    close = close or difflib.get_close_matches(fold, by_fold, n=1, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(repr(by_fold[name]) for name in close)}?"
    return f"{what}: {', '.join(by_fold.values())}" if by_fold else ""


def shown(value: Any) -> str:
    """Returns a value of a YAML file as messages show it: a scalar itself, shortened; else its kind."""
    match value:
        case None:
            return "empty"
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case str():
            return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}...")
        case list():
            return "a list"
        case _:
            return "a mapping"
