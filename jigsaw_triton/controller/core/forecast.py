"""Forecasts of a graph's load from its recent peaks. Pure functions."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Forecast = Callable[[Sequence[float]], float]
"""Function that returns the peak to expect in the next minute from the peaks of equal intervals, oldest first."""

PEAK_S = 10.0
"""Length of the intervals in seconds whose peaks a forecast sees."""

LEAST_WINDOW_S = 2 * PEAK_S
"""Shortest window of a forecast in seconds: beside the interval in progress, it has a whole one."""

_AHEAD = 6
"""Intervals to look ahead."""

_LEVEL, _TREND = 0.5, 0.1
"""Smoothing factors of Holt's method."""

_DEVIATIONS = 2.0
"""Standard deviations above the level that the Kalman filter adds."""

_DRIFT = 0.1
"""Variance by which the level of the Kalman filter moves in an interval, as a share of the observations' variance."""


def last(peaks: Sequence[float]) -> float:
    """Returns the last peak."""
    return peaks[-1]


def highest(peaks: Sequence[float]) -> float:
    """Returns the highest peak."""
    return max(peaks)


def holt(peaks: Sequence[float]) -> float:
    """Returns the level and trend of Holt's linear method (C. Holt, 1957), one minute ahead; never below 0."""
    level, trend = peaks[0], 0.0
    for peak in peaks[1:]:
        before = level
        level = _LEVEL * peak + (1 - _LEVEL) * (level + trend)
        trend = _TREND * (level - before) + (1 - _TREND) * trend
    return max(0.0, level + _AHEAD * trend)


def kalman(peaks: Sequence[float]) -> float:
    """Returns the level that a Kalman filter for a random walk with noise finds, and two standard deviations more.

    The variance of the observations is that of the differences of successive peaks, halved, since each difference has
    the noise of two of them.
    """
    differences = [now - before for before, now in pairwise(peaks)]
    noise = sum(d * d for d in differences) / (2 * len(differences)) if differences else 0.0
    level, variance = peaks[0], noise
    for peak in peaks[1:]:
        variance += _DRIFT * noise
        gain = variance / (variance + noise) if noise else 0.0
        level += gain * (peak - level)
        variance *= 1 - gain
    return level + _DEVIATIONS * math.sqrt(variance + noise)


SEASONAL = "seasonal"
"""Name of the forecast to which the rise is added that is usual at the time of day (`season`)."""

FORECASTS: Mapping[str, Forecast] = {
    "highest": highest,
    "last": last,
    "holt": holt,
    "kalman": kalman,
    SEASONAL: kalman,
}
"""Name -> forecast."""

DEFAULT_FORECAST = "highest"
"""Name of the forecast unless the user chooses another."""

WINDOW_S = 60.0
"""Seconds of load that the forecast sees unless the user says otherwise: capacity outlasts lulls that are shorter."""


@dataclass(frozen=True, slots=True)
class ForecastSettings:
    """Choice of a forecast.

    Attributes:
        name: Name of the forecast, of `FORECASTS`.
        window_s: Seconds of load whose peaks it sees, `LEAST_WINDOW_S` or more.
    """

    name: str = DEFAULT_FORECAST
    window_s: float = WINDOW_S

    def expected_rps(self, peaks: Sequence[float]) -> float:
        """Returns the peak to expect in the next minute from the peaks of equal intervals, oldest first."""
        return FORECASTS[self.name](peaks)
