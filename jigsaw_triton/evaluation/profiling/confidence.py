"""Confidence of a measurement, by sectioning. Does no I/O.

The latencies of successive batches depend on each other: a disturbance delays several in a row. Intervals that assume
independent latencies would be too narrow. Sectioning (Asmussen and Glynn, Stochastic Simulation, 2007, section III.5)
divides the measurement into k successive sections, which are long enough to be nearly independent, and computes a
figure for each of them, x(1) to x(k), and for the whole, x. The half width of the confidence interval is

    t(k - 1) * sqrt(sum((x(i) - x) ** 2) / (k * (k - 1)))

for any figure, means and quantiles alike. A measurement that ends at the first interval that is narrow enough has
asymptotically the stated confidence (Chow and Robbins, Annals of Mathematical Statistics, 1965).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jigsaw_triton.evaluation.profiling.figures import Span, figures

SECTIONS = 10
"""Number of sections. Between 10 and 30 are recommended: fewer give wide intervals, more are less independent
(Schmeiser, Batch Size Effects in the Analysis of Simulation Output, Operations Research, 1982)."""

STUDENT_T = 2.262
"""97.5% quantile of Student's t distribution with `SECTIONS` - 1 degrees of freedom, for a confidence of 95%."""

LEAST_BATCHES = 100
"""Smallest number of batches, of all lanes, for an interval. Sections have at least ten of them. In sections of fewer
than 20, the 95th percentile is the largest latency, which is above that of the whole: such an interval is too wide
rather than too narrow."""


@dataclass(frozen=True, slots=True)
class HalfWidths:
    """Half widths of the 95% confidence intervals of a measurement, relative to its figures.

    Attributes:
        latency_p95: Half width of the 95th percentile of the latency.
        throughput: Half width of the throughput.
    """

    latency_p95: float
    throughput: float

    @property
    def widest(self) -> float:
        """Larger half width."""
        return max(self.latency_p95, self.throughput)


def half_widths(lanes: Sequence[Sequence[Span]]) -> HalfWidths | None:
    """Returns the half widths of a closed loop; None if it has too few batches for an interval.

    Args:
        lanes: Consecutive batches of each lane.
    """
    if sum(map(len, lanes)) < LEAST_BATCHES or min(map(len, lanes)) < SECTIONS:
        return None
    whole = figures(lanes, 1)
    sections = [figures([_section(lane, index) for lane in lanes], 1) for index in range(SECTIONS)]
    return HalfWidths(
        _half_width([section.latency_p95_ms for section in sections], whole.latency_p95_ms),
        _half_width([section.throughput_rps for section in sections], whole.throughput_rps),
    )


def _section(lane: Sequence[Span], index: int) -> Sequence[Span]:
    return lane[index * len(lane) // SECTIONS : (index + 1) * len(lane) // SECTIONS]


def _half_width(sections: Sequence[float], whole: float) -> float:
    count = len(sections)
    squares = sum((section - whole) ** 2 for section in sections)
    return STUDENT_T * math.sqrt(squares / (count * (count - 1))) / whole
