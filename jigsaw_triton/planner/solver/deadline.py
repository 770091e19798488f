"""Time that something may take."""

import time

LEAST_S = 1.0
"""What small programs (flows, placement, reasons) get in any case."""


class Allowance:
    """Time from now on.

    Args:
        limit_s: How much.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s, self._began = limit_s, time.monotonic()

    @property
    def spent_s(self) -> float:
        """Of it, or beyond it."""
        return time.monotonic() - self._began

    @property
    def left_s(self) -> float:
        """What is left, but no less than `LEAST_S`."""
        return max(LEAST_S, self._limit_s - self.spent_s)

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return self.spent_s > self._limit_s
