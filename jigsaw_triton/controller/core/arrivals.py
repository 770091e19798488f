"""Request arrivals for each graph, from the gateway's counters. Pure functions.

A front counts each request on arrival, even if it refuses the request later. A BLS pipeline counts the requests that it
refuses before they reach a front.
"""

from collections.abc import Iterable

from jigsaw_triton.servers.metrics import Sample

_ARRIVED = "jigsaw_arrivals_total"
_REFUSED = "jigsaw_refused_total"

COUNTERS = (_ARRIVED, _REFUSED)
"""Names of the counters that `arrived` reads."""


def arrived(samples: Iterable[Sample]) -> dict[str, float]:
    """Returns the number of requests that each graph has received since the gateway started.

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
