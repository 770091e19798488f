"""Reserve for bursts: capacity for loads that rise faster than a change of the plan can follow. Pure functions."""

import math
from dataclasses import dataclass

from jigsaw_triton.controller.core.settings import Settings

_TAIL = 1.5
"""Factor of the reserve, because the largest bursts are rarer and larger than an exponential distribution says."""

_LEAST = 1.5
"""Number of equal bursts, in effect, from which on they are expected to recur. A single one may be a step of the load
that stays."""


@dataclass(frozen=True, slots=True)
class Bursts:
    """Sums over intervals of the recent load, in which old intervals count less.

    Attributes:
        load: Sum of the peaks.
        excess: Sum of the parts of the peaks beyond what was to be planned for when their intervals began.
        squares: Sum of the squares of these parts.
        current: Largest of these parts since a burst began that has not ended; 0 if there is none. A burst counts once.
        seen_s: Length of the intervals in seconds, at most `Settings.learning_s`.
    """

    load: float = 0.0
    excess: float = 0.0
    squares: float = 0.0
    current: float = 0.0
    seen_s: float = 0.0

    def with_interval(self, peak_rps: float, planned_rps: float, seconds: float, settings: Settings) -> "Bursts":
        """Returns the sums with one more interval.

        Args:
            peak_rps: Peak of the load in the interval.
            planned_rps: Demand that was to be planned for when it began, without a reserve.
            seconds: Length of the interval.
            settings: Settings, with the half-life.
        """
        kept = 0.5 ** (seconds / settings.burst_half_life_s)
        before, now = self.current, max(0.0, peak_rps - planned_rps)
        largest = max(before, now) if now else 0.0
        return Bursts(
            load=self.load * kept + peak_rps,
            excess=self.excess * kept + max(0.0, largest - before),
            squares=self.squares * kept + max(0.0, largest**2 - before**2),
            current=largest,
            seen_s=min(self.seen_s + seconds, settings.learning_s),
        )

    def reserve_rps(self, settings: Settings) -> float:
        """Returns the demand to plan for beyond the forecast, so that most bursts stay below it.

        It is 0 while bursts are at most `Settings.burst_share` of the load. Otherwise they are taken to be
        exponentially distributed, with the mean that follows from the two sums. The part of them beyond a reserve then
        falls exponentially with the reserve, down to that share.
        """
        allowed = settings.burst_share * self.load
        if self.excess <= allowed or self.excess**2 < _LEAST * self.squares:
            return 0.0
        return _TAIL * self.squares / (2 * self.excess) * math.log(self.excess / allowed)
