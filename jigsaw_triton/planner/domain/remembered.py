"""The latest results of pure functions, for each subject that they are asked about."""

from collections.abc import Callable, Hashable
from functools import lru_cache, partial, wraps
from typing import Concatenate, ParamSpec, TypeVar

S = TypeVar("S", bound=Hashable)
P = ParamSpec("P")
R = TypeVar("R")

Function = Callable[Concatenate[S, P], R]


def remembered(subjects: int = 1024, versions: int = 4) -> Callable[[Function[S, P, R]], Function[S, P, R]]:
    """Makes a function return an earlier result for equal arguments, like `functools.lru_cache`, also in threads.

    The first argument is the subject of a call. A subject of which the other arguments change again and again, such as
    a task whose measured rows differ at each plan, takes no memory from the others. All arguments must be hashable, and
    the result must not be changed.

    Args:
        subjects: Number of subjects to keep, those used last. The default is a convention that limits memory.
        versions: Number of results to keep of each subject, those used last. By default enough for one plan, which asks
            with and without the replicas that run.
    """

    def decorated(function: Function[S, P, R]) -> Function[S, P, R]:
        @lru_cache(maxsize=subjects)
        def of(subject: S) -> Callable[..., R]:
            return lru_cache(maxsize=versions)(partial(function, subject))

        @wraps(function)
        def remembering(subject: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return of(subject)(*args, **kwargs)

        return remembering

    return decorated
