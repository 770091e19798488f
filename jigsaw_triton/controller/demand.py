"""Whether the measured load has left what the plan covers. Pure."""

from dataclasses import dataclass, replace

from jigsaw_triton.controller.settings import Settings


@dataclass(frozen=True, slots=True)
class Sample:
    """Arrivals of one graph over the time since the sample before.

    Attributes:
        at_s: End of the interval, on the controller's monotonic clock.
        rps: Mean over it.
    """

    at_s: float
    rps: float


@dataclass(frozen=True, slots=True)
class Demand:
    """A graph's recent arrivals, oldest first, no older than Settings.fall_window_s."""

    samples: tuple[Sample, ...] = ()

    def with_sample(self, sample: Sample, settings: Settings) -> "Demand":
        """These samples and one more, those too old left out."""
        kept = tuple(s for s in self.samples if s.at_s > sample.at_s - settings.fall_window_s)
        return replace(self, samples=(*kept, sample))

    def mean_rps(self, window_s: float) -> float:
        """Mean of the samples that end within `window_s` before the last; 0 without samples."""
        if not self.samples:
            return 0.0
        recent = [s.rps for s in self.samples if s.at_s > self.samples[-1].at_s - window_s]
        return sum(recent) / len(recent)

    def change(self, planned_rps: float, base_rps: float, settings: Settings, *, covered_rps: float) -> float | None:
        """The demand to plan for instead of `planned_rps`, or None while the plan still fits.

        Args:
            planned_rps: What the running plan was made for.
            base_rps: What is always provided for.
            covered_rps: What the running plan can carry, at least `planned_rps`.
            settings: Thresholds.
        """
        if not self.samples or self._covered_s() < settings.rise_window_s - 0.5:
            return None
        # Both halves of the window must be above: one burst is no rise. The later half tells where a rise has got to.
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
        """Highest mean over any `window_s` that ends at a sample."""
        means = [Demand(self.samples[: i + 1]).mean_rps(window_s) for i in range(len(self.samples))]
        return max(means)
