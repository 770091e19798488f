"""Counts of the requests of each generation of a graph, from the gateway's counters. Pure functions."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from jigsaw_triton.servers.metrics import Sample

_REQUESTS = "jigsaw_generation_requests_total"
_SECONDS = "jigsaw_generation_seconds_bucket"


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """Counts of the requests that were bound to one generation of a graph.

    Attributes:
        requests: Number of requests that were answered or failed.
        failed: Number of requests that failed.
        within: Seconds -> number of answers that took at most so long.
    """

    requests: float = 0.0
    failed: float = 0.0
    within: Mapping[float, float] = field(default_factory=dict)

    def __add__(self, other: "RequestCounts") -> "RequestCounts":
        return self._combined(other, 1.0)

    def __sub__(self, other: "RequestCounts") -> "RequestCounts":
        return self._combined(other, -1.0)

    def _combined(self, other: "RequestCounts", sign: float) -> "RequestCounts":
        bounds = self.within.keys() | other.within.keys()
        within = {b: self.within.get(b, 0.0) + sign * other.within.get(b, 0.0) for b in sorted(bounds)}
        return RequestCounts(self.requests + sign * other.requests, self.failed + sign * other.failed, within)

    @property
    def answered(self) -> float:
        """Number of answers."""
        return self.within.get(math.inf, 0.0)

    @property
    def failed_ratio(self) -> float:
        """Ratio of failed requests; 0 without requests."""
        return self.failed / self.requests if self.requests else 0.0

    def slower(self, bound_s: float) -> float:
        """Returns the number of answers that took longer than a bound of the histogram."""
        return self.answered - self.within.get(bound_s, 0.0)

    def percentile_s(self, percent: float) -> float | None:
        """Returns the histogram's bound below which this percentage of the answers lies; None without answers."""
        if not self.answered:
            return None
        return min(bound for bound, count in self.within.items() if count >= self.answered * percent / 100)


CountsByGeneration = Mapping[tuple[str, int], RequestCounts]
"""(Graph, generation) -> its requests."""


def read_request_counts(samples: Iterable[Sample]) -> CountsByGeneration:
    """Returns the requests of each generation since its routes first named it.

    Args:
        samples: Samples of the gateway's /metrics.
    """
    outcomes: dict[tuple[str, int], dict[str, float]] = {}
    within: dict[tuple[str, int], dict[float, float]] = {}
    for sample in samples:
        if sample.name in (_REQUESTS, _SECONDS):
            key = sample.labels["graph"], int(sample.labels["generation"])
            if sample.name == _REQUESTS:
                outcomes.setdefault(key, {})[sample.labels["outcome"]] = sample.value
            else:
                within.setdefault(key, {})[float(sample.labels["le"])] = sample.value
    return {
        key: RequestCounts(sum(counts.values()), counts.get("failed", 0.0), within.get(key, {}))
        for key, counts in outcomes.items()
    }


def request_counts_since(before: CountsByGeneration, now: CountsByGeneration) -> CountsByGeneration:
    """Returns the requests between two readings. Counters that went down have restarted from 0."""
    nothing = RequestCounts()
    return {
        key: one - before[key] if one.requests >= before.get(key, nothing).requests and key in before else one
        for key, one in now.items()
    }
