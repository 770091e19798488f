"""Wall-clock budget of a sweep: how long the next measurement may take, and how long the rest will take."""

import time
from collections.abc import Callable

from jigsaw_triton.evaluation.profiling.load import Pace

_OVERHEAD_S = 3.0
"""Seconds for the start of a model and the warm-up, until the first point has shown how long they take."""


class Budget:
    """Divides the time of a sweep among its points.

    Args:
        seconds: Seconds for the whole sweep from now on; None for no limit.
        pace: Duration of a measurement that has all the time it needs.
        clock: Function that returns the time in seconds.
    """

    def __init__(self, seconds: float | None, pace: Pace, clock: Callable[[], float] = time.monotonic) -> None:
        self._end_s = None if seconds is None else clock() + seconds
        self._pace = pace
        self._clock = clock
        self._points = 0
        self._total_s = 0.0
        self._overhead_s = 0.0

    def pace(self, remaining: int) -> Pace | None:
        """Returns the duration of the next measurement; None if there is no time for it.

        If time is short, the points that remain share it evenly.

        Args:
            remaining: Number of points that remain, including the next.
        """
        if self._end_s is None:
            return self._pace
        overhead_s = self._overhead_s / self._points if self._points else _OVERHEAD_S
        left_s = self._end_s - self._clock()
        least_s = min(self._pace.least_s, self._pace.most_s)
        if left_s < overhead_s + least_s:
            return None
        share_s = left_s / remaining - overhead_s
        return self._pace.at_most(max(least_s, share_s))

    def spent(self, total_s: float, measuring_s: float) -> None:
        """Takes note of a point.

        Args:
            total_s: Seconds that it took.
            measuring_s: Seconds of them in which it was measured.
        """
        self._points += 1
        self._total_s += total_s
        self._overhead_s += total_s - measuring_s

    def left_s(self, remaining: int) -> float | None:
        """Returns about how many seconds the rest of the sweep takes; None if that is not known yet.

        Args:
            remaining: Number of points that remain.
        """
        usual_s = remaining * self._total_s / self._points if self._points else None
        if self._end_s is None:
            return usual_s
        left_s = max(0.0, self._end_s - self._clock())
        return left_s if usual_s is None else min(left_s, usual_s)
