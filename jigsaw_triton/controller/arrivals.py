"""Requests that have arrived at graphs, from the gateway's counters. Pure.

Fronts count each request as it comes, those that they refuse included; BLS pipelines count those that they refuse
before any front has them.
"""

from collections.abc import Iterable, Mapping

from jigsaw_triton.servers.metrics import Sample

_ARRIVED = "jigsaw_arrivals_total"
_REFUSED = "jigsaw_refused_total"


def arrived(samples: Iterable[Sample]) -> dict[str, float]:
    """Graph -> requests that have come to it since the gateway was started.

    Args:
        samples: Samples of the gateway's /metrics.
    """
    found: dict[str, float] = {}
    for sample in samples:
        at_pipeline = sample.name == _REFUSED and sample.labels.get("task") == ""
        if sample.name == _ARRIVED or at_pipeline:
            graph = sample.labels.get("graph", "")
            found[graph] = found.get(graph, 0.0) + sample.value
    return found


def arrivals(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Graph -> requests that came between two readings; counters that went down began at 0."""
    return {
        graph: count - before.get(graph, 0.0) if count >= before.get(graph, 0.0) else count
        for graph, count in now.items()
    }
