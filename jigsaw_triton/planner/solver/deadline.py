"""Wall-clock deadlines of planning."""

import time

LEAST_S = 1.0
"""Seconds that small programs (flows, placement, reasons) get even after the deadline. A convention."""


class Deadline:
    """Wall-clock budget of an operation, which starts when this object is made.

    Args:
        limit_s: Seconds until the deadline.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s, self._began = limit_s, time.monotonic()

    @property
    def spent_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, but at least `LEAST_S`."""
        return max(LEAST_S, self._limit_s - self.spent_s)

    @property
    def over(self) -> bool:
        """True once the deadline has passed."""
        return self.spent_s > self._limit_s
