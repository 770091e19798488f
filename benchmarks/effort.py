"""Effort of a benchmark: full, for meaningful figures, or a smoke run that only shows that it works."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Effort:
    """Effort of one run.

    Attributes:
        rounds: Measurements of each figure; the median is reported.
        warm_ups: Rounds before them that are not counted.
        time_share: Share of each measurement's usual time.
        load_share: Share of the usual numbers of clients, requests and faults, if these are large.
    """

    rounds: int = 3
    warm_ups: int = 1
    time_share: float = 1.0
    load_share: float = 1.0

    def seconds(self, usual_s: float, *, least_s: float = 0.4) -> float:
        """Returns the time of a measurement.

        Args:
            usual_s: Usual time in seconds.
            least_s: Seconds that the measurement needs to give any figure.
        """
        return max(least_s, self.time_share * usual_s)

    def some(self, usual: Sequence[T]) -> Sequence[T]:
        """Returns the values to measure at: all usual ones, or only the last one in a smoke run."""
        return usual if self.time_share == 1 else usual[-1:]

    def count(self, usual: int) -> int:
        """Returns the number of clients, requests or faults, of which there are usually this many."""
        return max(1, round(self.load_share * usual))


FULL = Effort()
SMOKE = Effort(rounds=1, warm_ups=0, time_share=0.03, load_share=0.01)
"""Effort of a smoke run. Its figures are meaningless."""
