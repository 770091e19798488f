"""The latest results of pure functions whose arguments can be compared, but not hashed."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def remembered(size: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a function return an earlier result for equal arguments, like `functools.lru_cache`.

    A call compares its arguments with those of up to `size` earlier calls, so different ones should differ early: a
    graph first, whose name differs.

    Args:
        size: Number of results to keep, those used last.
    """

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        known: list[tuple[Any, R]] = []

        @wraps(function)
        def remembering(*args: P.args, **kwargs: P.kwargs) -> R:
            key = (args, kwargs)
            at = next((i for i, (earlier, _) in enumerate(known) if earlier == key), None)
            entry = known.pop(at) if at is not None else (key, function(*args, **kwargs))
            known.insert(0, entry)
            del known[size:]
            return entry[1]

        return remembering

    return decorated
