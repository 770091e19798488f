"""Bisection: how the planner finds the threshold of a condition that changes once."""

import math
from collections.abc import Callable


def bisect(
    holds: Callable[[float], bool | None], yes: float, no: float, *, rel_tol: float = 0.0, abs_tol: float = 0.0
) -> tuple[float, float]:
    """Narrows an interval in which a condition changes from true to false.

    Each step halves the interval, so it takes log2(width / tolerance) calls of the condition, rounded up.

    Args:
        holds: Condition, which changes once between the two ends; None, for unknown, counts as False.
        yes: End where the condition is known to hold; below or above the other end.
        no: End where the condition is known not to hold.
        rel_tol: Largest width of the result, relative to its larger end, as in `math.isclose`.
        abs_tol: Largest absolute width of the result; one of the two tolerances is above 0.

    Returns:
        The end where the condition holds and the one where it does not, no further apart than the tolerance.
    """
    while not math.isclose(yes, no, rel_tol=rel_tol, abs_tol=abs_tol):
        middle = (yes + no) / 2
        yes, no = (middle, no) if holds(middle) else (yes, middle)
    return yes, no
