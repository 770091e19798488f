"""Computes the figures of a profile from the start and end times of batches. Does no I/O."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[float, float]
"""Times at which a batch was sent and completely answered, in seconds of one clock."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of a measurement.

    Attributes:
        latency_p50_ms: Median latency of a batch.
        latency_p95_ms: 95th percentile of the latency of a batch.
        latency_p99_ms: 99th percentile of the latency of a batch.
        throughput_rps: Items per second of all lanes together.
        batches: Number of measured batches.
    """

    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float
    throughput_rps: float
    batches: int


def within(spans: Sequence[Span], start_s: float, end_s: float) -> list[Span]:
    """Returns the batches that were sent and answered within the interval, in which all lanes were busy."""
    return [(begun, ended) for begun, ended in spans if begun >= start_s and ended <= end_s]


def figures(lanes: Sequence[Sequence[Span]], batch: int) -> Figures:
    """Computes the figures of a closed loop.

    Args:
        lanes: Consecutive batches of each lane, at least one per lane.
        batch: Items in each batch.
    """
    latencies_ms = sorted(1000 * (ended - begun) for spans in lanes for begun, ended in spans)
    # Each lane's throughput uses the time of its own batches, since a common interval would cut a batch of each lane.
    throughput = sum(batch * len(spans) / (spans[-1][1] - spans[0][0]) for spans in lanes)
    p50, p95, p99 = (percentile(latencies_ms, percent) for percent in (50, 95, 99))
    return Figures(p50, p95, p99, throughput, len(latencies_ms))


def percentile(ascending: Sequence[float], percent: float) -> float:
    """Returns the nearest-rank percentile: the smallest value that `percent` of all values do not exceed.

    Args:
        ascending: Values in ascending order, at least one.
        percent: Percentile above 0, up to 100.
    """
    return ascending[math.ceil(percent / 100 * len(ascending)) - 1]
