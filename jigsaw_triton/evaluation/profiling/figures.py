"""From when batches began and ended to the figures of a profile. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[float, float]
"""When a batch was sent and when all of its answer was there, in seconds of one clock."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured.

    Attributes:
        latency_p50_ms: Of one batch.
        latency_p95_ms: Likewise.
        latency_p99_ms: Likewise.
        throughput_rps: Items a second of all lanes together.
        batches: How many were measured.
    """

    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float
    throughput_rps: float
    batches: int


def within(spans: Sequence[Span], start_s: float, end_s: float) -> list[Span]:
    """The batches that were sent and answered in the interval: while all others were under way too."""
    return [(begun, ended) for begun, ended in spans if begun >= start_s and ended <= end_s]


def figures(lanes: Sequence[Sequence[Span]], batch: int) -> Figures:
    """The figures of a closed loop.

    Args:
        lanes: Of each lane the batches one after the other, at least one.
        batch: Items in each.
    """
    latencies_ms = sorted(1000 * (ended - begun) for spans in lanes for begun, ended in spans)
    # A lane counts for as long as its own batches took: a common interval would cut off a part of a batch of each.
    throughput = sum(batch * len(spans) / (spans[-1][1] - spans[0][0]) for spans in lanes)
    p50, p95, p99 = (percentile(latencies_ms, percent) for percent in (50, 95, 99))
    return Figures(p50, p95, p99, throughput, len(latencies_ms))


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the least value that `percent` of all values do not exceed.

    Args:
        ascending: At least one value.
        percent: Above 0, up to 100.
    """
    return ascending[math.ceil(percent / 100 * len(ascending)) - 1]
