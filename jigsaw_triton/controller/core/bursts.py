"""Reserve for bursts: capacity for loads that rise faster than a change of the plan can follow. Pure functions."""

import math
from dataclasses import dataclass

from jigsaw_triton.controller.core.settings import Settings

_TAIL = 1.5
"""Factor of the reserve, because the largest bursts are rarer and larger than an exponential distribution says."""


@dataclass(frozen=True, slots=True)
class Bursts:
    """Sums over intervals of the recent load, in which old intervals count less.

    Attributes:
        load: Sum of the peaks.
        excess: Sum of the parts of the peaks beyond what was to be planned for when their intervals began.
        squares: Sum of the squares of these parts.
    """

    load: float = 0.0
    excess: float = 0.0
    squares: float = 0.0

    def with_interval(self, peak_rps: float, planned_rps: float, seconds: float, settings: Settings) -> "Bursts":
        """Returns the sums with one more interval.

        Args:
            peak_rps: Peak of the load in the interval.
            planned_rps: Demand that was to be planned for when it began, without a reserve.
            seconds: Length of the interval.
            settings: Settings, with the half-life.
        """
        kept = 0.5 ** (seconds / settings.burst_half_life_s)
        excess = max(0.0, peak_rps - planned_rps)
        return Bursts(self.load * kept + peak_rps, self.excess * kept + excess, self.squares * kept + excess * excess)

    def reserve_rps(self, settings: Settings) -> float:
        """Returns the demand to plan for beyond the forecast, so that most bursts stay below it.

        It is 0 while bursts are at most `Settings.burst_share` of the load. Otherwise they are taken to be
        exponentially distributed, with the mean that follows from the two sums. The part of them beyond a reserve then
        falls exponentially with the reserve, down to that share.
        """
        allowed = settings.burst_share * self.load
        if not self.excess or self.excess <= allowed:
            return 0.0
        return _TAIL * self.squares / (2 * self.excess) * math.log(self.excess / allowed)
