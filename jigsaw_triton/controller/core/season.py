"""Season of the load: what is usual at a time of day. Pure functions."""

from dataclasses import dataclass, replace

DAY_S = 86400.0
BIN_S = 900.0
"""Length of the intervals of a day in seconds."""

BINS = round(DAY_S / BIN_S)

AHEAD_S = 600.0
"""Seconds to look ahead: a change of the plan takes less, and some of them are saved."""

_SMOOTHING = 0.5
"""Weight of the last day among all days."""

UNKNOWN = -1.0
"""Usual load at a time of day that has not been seen."""


@dataclass(frozen=True, slots=True)
class Season:
    """Usual load by the time of day.

    Attributes:
        usual_rps: Usual mean of the peaks in each interval of a day, or `UNKNOWN`; empty before the first one ends.
        bin: Interval in progress; -1 before the first peak.
        total_rps: Sum of its peaks.
        peaks: Number of its peaks.
    """

    usual_rps: tuple[float, ...] = ()
    bin: int = -1
    total_rps: float = 0.0
    peaks: int = 0

    def with_peak(self, utc_s: float, rps: float) -> "Season":
        """Returns the season with one more peak.

        Args:
            utc_s: Time of the peak, in seconds since the epoch.
            rps: Peak.
        """
        now = int(utc_s % DAY_S / BIN_S)
        if now == self.bin:
            return replace(self, total_rps=self.total_rps + rps, peaks=self.peaks + 1)
        if self.bin < 0:
            return Season(self.usual_rps, now, rps, 1)
        usual = list(self.usual_rps or (UNKNOWN,) * BINS)
        before, mean = usual[self.bin], self.total_rps / self.peaks
        usual[self.bin] = mean if before == UNKNOWN else _SMOOTHING * mean + (1 - _SMOOTHING) * before
        return Season(tuple(usual), now, rps, 1)

    def rise_rps(self, utc_s: float, level_rps: float) -> float:
        """Returns the rise of the load to expect in the next `AHEAD_S` seconds; 0 if it is unknown or falls.

        On a day with less load than usual, the rise is smaller in proportion.

        Args:
            utc_s: Present time, in seconds since the epoch.
            level_rps: Present load.
        """
        now_rps, then_rps = self._usual_rps(utc_s), self._usual_rps(utc_s + AHEAD_S)
        if now_rps is None or then_rps is None or then_rps <= now_rps:
            return 0.0
        return (then_rps - now_rps) * (min(1.0, level_rps / now_rps) if now_rps > 0 else 1.0)

    def _usual_rps(self, utc_s: float) -> float | None:
        """Returns the usual load at a time, between those in the middle of two intervals; None if it is unknown."""
        if not self.usual_rps:
            return None
        place = utc_s % DAY_S / BIN_S - 0.5
        first = int(place // 1)
        part = place - first
        before, after = self.usual_rps[first % BINS], self.usual_rps[(first + 1) % BINS]
        return None if UNKNOWN in (before, after) else (1 - part) * before + part * after
