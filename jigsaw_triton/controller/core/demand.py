"""Measured demand of a graph, and the decision to plan again. Pure functions."""

from dataclasses import dataclass, replace

from jigsaw_triton.controller.core.settings import Settings


@dataclass(frozen=True, slots=True)
class Sample:
    """Arrivals of one graph since the previous sample.

    Attributes:
        at_s: End of the interval, on the controller's monotonic clock.
        rps: Mean arrival rate over the interval.
    """

    at_s: float
    rps: float


@dataclass(frozen=True, slots=True)
class Demand:
    """Recent arrivals of a graph.

    Attributes:
        samples: Samples of the last `Settings.fall_window_s` seconds, oldest first.
    """

    samples: tuple[Sample, ...] = ()

    def with_sample(self, sample: Sample, settings: Settings) -> "Demand":
        """Returns a copy with one more sample and without those that are too old."""
        kept = tuple(s for s in self.samples if s.at_s > sample.at_s - settings.fall_window_s)
        return replace(self, samples=(*kept, sample))

    def mean_rps(self, window_s: float) -> float:
        """Returns the mean rate of the samples in the last `window_s` seconds; 0 if there are none."""
        if not self.samples:
            return 0.0
        recent = [s.rps for s in self.samples if s.at_s > self.samples[-1].at_s - window_s]
        return sum(recent) / len(recent)

    def change(self, planned_rps: float, base_rps: float, settings: Settings, *, covered_rps: float) -> float | None:
        """Returns the demand to plan for instead of `planned_rps`; None while the running plan fits.

        Args:
            planned_rps: Demand that the running plan was made for.
            base_rps: Demand that every plan must cover.
            covered_rps: Capacity of the running plan, at least `planned_rps`.
            settings: Thresholds of the decision.
        """
        if not self.samples or self._covered_s() < settings.rise_window_s - 0.5:
            return None
        # Both halves of the window must be above the capacity, since one burst is not a rise. The later half shows the
        # level that a rise has reached.
        half_s = settings.rise_window_s / 2
        whole, later = self.mean_rps(settings.rise_window_s), self.mean_rps(half_s)
        if min(2 * whole - later, later) > covered_rps * settings.rise_over:
            return max(whole, later) * settings.headroom
        if planned_rps > base_rps and self._covered_s() >= settings.fall_window_s - 2.0:
            peak = self._peak_rps(settings.rise_window_s)
            target = max(base_rps, peak * settings.headroom)
            if peak < planned_rps * settings.fall_under and target < planned_rps:
                return target
        return None

    def _covered_s(self) -> float:
        return self.samples[-1].at_s - self.samples[0].at_s

    def _peak_rps(self, window_s: float) -> float:
        """Returns the highest mean over any window of `window_s` seconds that ends at a sample."""
        means = [Demand(self.samples[: i + 1]).mean_rps(window_s) for i in range(len(self.samples))]
        return max(means)
