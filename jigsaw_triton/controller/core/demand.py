"""Measured demand of a graph, and the decision to plan again. Pure functions."""

import math
from dataclasses import dataclass, field, replace

from jigsaw_triton.controller.core.bursts import Bursts
from jigsaw_triton.controller.core.forecast import PEAK_S, SEASONAL, ForecastSettings
from jigsaw_triton.controller.core.season import Season
from jigsaw_triton.controller.core.settings import Settings

_DEVIATIONS = 3.0
"""Standard deviations of a window's mean rate by which a load must fall to count as fallen."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Arrivals of one graph in an interval.

    Attributes:
        at_s: End of the interval, on the controller's monotonic clock; beginning for a peak.
        rps: Mean arrival rate over the interval; for a peak, the highest mean over `Settings.rise_window_s` in it.
    """

    at_s: float
    rps: float


@dataclass(frozen=True, slots=True)
class Demand:
    """Recent arrivals of a graph, and what has been learned from earlier ones.

    Attributes:
        samples: Samples of the last `Settings.rise_window_s` seconds and one more, oldest first.
        peaks: Peaks of the intervals of `PEAK_S` in the window of the forecast, oldest first.
        since_s: Time of the first sample.
        bursts: Bursts in the intervals so far.
        season: Usual load by the time of day.
        utc_offset_s: Seconds by which the time since the epoch is ahead of the controller's monotonic clock.
        forecast: Forecast of the load.
    """

    samples: tuple[Sample, ...] = ()
    peaks: tuple[Sample, ...] = ()
    since_s: float = 0.0
    bursts: Bursts = field(default_factory=Bursts)
    season: Season = field(default_factory=Season)
    utc_offset_s: float = 0.0
    forecast: ForecastSettings = field(default_factory=ForecastSettings)

    def with_sample(
        self, sample: Sample, settings: Settings, *, base_rps: float = 0.0, utc_offset_s: float = 0.0
    ) -> "Demand":
        """Returns a copy with one more sample and without those that are too old.

        Args:
            sample: Sample.
            settings: Settings, with the windows.
            base_rps: Demand that every plan covers.
            utc_offset_s: See `utc_offset_s`.
        """
        kept = tuple(s for s in self.samples if s.at_s >= sample.at_s - settings.rise_window_s)
        samples = (*kept, sample)
        if not self.peaks:
            return replace(self, samples=samples, peaks=(sample,), since_s=sample.at_s, utc_offset_s=utc_offset_s)
        begin_s = self.peaks[-1].at_s
        if sample.at_s >= begin_s + PEAK_S:
            oldest_s = sample.at_s - self.forecast.window_s
            first = next((i for i, peak in enumerate(self.peaks) if peak.at_s > oldest_s), len(self.peaks))
            return replace(
                self,
                samples=samples,
                peaks=(*self.peaks[first:], sample),
                bursts=self._bursts_now(settings, base_rps),
                season=self._season_now(begin_s),
                utc_offset_s=utc_offset_s,
            )
        # Windows do not reach into the interval before: after a fall, its load must not count twice.
        inside = Demand(tuple(s for s in samples if s.at_s >= begin_s))
        rps, whole_s = inside.mean_rps(settings.rise_window_s), begin_s + settings.rise_window_s - 0.5
        if self.samples[-1].at_s >= whole_s:
            rps = max(rps, self.peaks[-1].rps)
        return replace(self, samples=samples, peaks=(*self.peaks[:-1], Sample(begin_s, rps)))

    def with_forecast(self, forecast: ForecastSettings) -> "Demand":
        """Returns a copy with another forecast. Of a longer window, only what the peaks cover has been seen."""
        if forecast == self.forecast:
            return self
        longer = forecast.window_s > self.forecast.window_s and self.peaks
        since_s = max(self.since_s, self.peaks[0].at_s) if longer else self.since_s
        return replace(self, forecast=forecast, since_s=since_s)

    def _season_now(self, begin_s: float) -> Season:
        """Returns the season with the last peak, if the forecast uses it."""
        if self.forecast.name != SEASONAL:
            return self.season
        return self.season.with_peak(begin_s + self.utc_offset_s, self.peaks[-1].rps)

    def learned(self) -> "Demand":
        """Returns what has been learned, without the recent arrivals."""
        return Demand(bursts=self.bursts, season=self.season)

    def mean_rps(self, window_s: float) -> float:
        """Returns the mean rate of the samples in the last `window_s` seconds; 0 if there are none."""
        if not self.samples:
            return 0.0
        recent = [s.rps for s in self.samples if s.at_s > self.samples[-1].at_s - window_s]
        return sum(recent) / len(recent)

    def risen(self, settings: Settings, *, covered_rps: float) -> float | None:
        """Returns the demand to plan for at once, if the load exceeds the capacity or is about to; else None.

        It is the level that the load has reached or that the forecast expects, whichever is higher.

        Args:
            settings: Thresholds of the decision.
            covered_rps: Capacity of the running plan.
        """
        if not self.samples or self._covered_s() < settings.rise_window_s - 0.5:
            return None
        # Both halves of the window must be above the capacity, since one burst is not a rise. The later half shows the
        # level that a rise has reached.
        half_s = settings.rise_window_s / 2
        whole, later = self.mean_rps(settings.rise_window_s), self.mean_rps(half_s)
        level_rps = min(2 * whole - later, later)
        ahead_rps = max(level_rps + self._rise_rps(level_rps), self.bursts.reserve_rps(settings))
        if ahead_rps > covered_rps * settings.rise_over:
            return self._target_rps(settings)
        return None

    def fallen(self, planned_rps: float, base_rps: float, settings: Settings) -> float | None:
        """Returns the demand for which another plan may save slices; None unless the forecast expects a lower load.

        The forecast needs a whole window of peaks for that, and the fall must exceed the noise of Poisson arrivals:
        the fewer requests, the more their rate varies by chance. At first, a fall may be a lull between bursts: a load
        must have been seen for `Settings.learning_s`.

        Args:
            planned_rps: Demand that the running plan was made for.
            base_rps: Demand that every plan must cover.
            settings: Thresholds of the decision.
        """
        if not self.samples or planned_rps <= base_rps or self._covered_s() < self.forecast.window_s - 2.0:
            return None
        if self.bursts.seen_s < settings.learning_s:
            return None
        level_rps, target_rps = self._level_rps(settings), max(base_rps, self._target_rps(settings))
        noise_rps = _DEVIATIONS * _noise_rps(level_rps, settings.rise_window_s)
        fallen = level_rps + noise_rps + self.bursts.reserve_rps(settings) < planned_rps * settings.fall_under
        return target_rps if fallen and target_rps < planned_rps else None

    def _target_rps(self, settings: Settings) -> float:
        """Returns the demand to plan for: chance alone must seldom exceed it in both halves of a window.

        It is rounded up to a power of `Settings.demand_step`, so that similar loads lead to the same plan.
        """
        target_rps = _to_plan_rps(self._level_rps(settings), settings) + self.bursts.reserve_rps(settings)
        if target_rps <= 0:
            return target_rps
        return float(settings.demand_step ** math.ceil(math.log(target_rps, settings.demand_step)))

    def _level_rps(self, settings: Settings) -> float:
        """Returns the level that the load has reached or that the forecast expects, whichever is higher."""
        expected = self.forecast.expected_rps([peak.rps for peak in self.peaks])
        expected += self._rise_rps(expected)
        return max(self.mean_rps(settings.rise_window_s), self.mean_rps(settings.rise_window_s / 2), expected)

    def _rise_rps(self, level_rps: float) -> float:
        """Returns the rise from a level that is usual at this time of day, if the forecast takes it into account."""
        if self.forecast.name != SEASONAL:
            return 0.0
        return self.season.rise_rps(self.samples[-1].at_s + self.utc_offset_s, level_rps)

    def _bursts_now(self, settings: Settings, base_rps: float) -> Bursts:
        """Returns the bursts with the last interval, which has ended. Before it a whole window must have been seen."""
        *before, peak = self.peaks
        if not before or peak.at_s - self.since_s < self.forecast.window_s - PEAK_S / 2:
            return self.bursts
        expected_rps = self.forecast.expected_rps([one.rps for one in before])
        planned_rps = max(base_rps, _to_plan_rps(expected_rps, settings))
        return self.bursts.with_interval(peak.rps, planned_rps, PEAK_S, settings)

    def _covered_s(self) -> float:
        return self.samples[-1].at_s - self.since_s


def _to_plan_rps(level_rps: float, settings: Settings) -> float:
    """Returns the demand to plan for at a level of the load, without a reserve for bursts."""
    return level_rps * settings.headroom + _noise_rps(level_rps, settings.rise_window_s / 2)


def _noise_rps(rate_rps: float, window_s: float) -> float:
    """Returns the standard deviation of the rate that a window shows if arrivals are Poisson."""
    return math.sqrt(rate_rps / window_s)
