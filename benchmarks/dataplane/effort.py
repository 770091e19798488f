"""How long a benchmark measures: as long as its figures need, or just to see that it runs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """Effort of one run.

    Attributes:
        rounds: Measurements of each figure, of which the median counts.
        warm_ups: Rounds before them that do not count.
        of_time: Part of each measurement's usual time.
        of_load: Part of the usual numbers of clients, requests and faults where they are large.
    """

    rounds: int = 3
    warm_ups: int = 1
    of_time: float = 1.0
    of_load: float = 1.0

    def seconds(self, usual_s: float, *, least_s: float = 1.0) -> float:
        """Time of a measurement that usually takes so long, and needs some time to give a figure at all."""
        return max(least_s, self.of_time * usual_s)

    def count(self, usual: int) -> int:
        """Number of things of which there are usually so many."""
        return max(1, round(self.of_load * usual))


FULL = Effort()
SMOKE = Effort(rounds=1, warm_ups=0, of_time=0.05, of_load=0.02)
"""Effort of a run that only shows that the benchmark works; its figures mean nothing."""
