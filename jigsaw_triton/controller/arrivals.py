"""Requests that have arrived at a graph, from the gateway's counters. Pure.

They are counted at the dispatchers of the graph's first task, which every request comes to first, but for those that
its pipeline refuses before. The graph's front counts only what has been answered: when a later task falls behind, it
would show the system's capacity, not its load.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jigsaw_triton.servers.metrics import Sample

_ENDED = ("nv_inference_request_success", "nv_inference_request_failure")
_PENDING = "nv_inference_pending_request_count"
_REFUSED = "jigsaw_refused_total"


@dataclass(frozen=True, slots=True)
class Counters:
    """Of one dispatcher.

    Attributes:
        ended: Requests that it is done with, since it was loaded.
        pending: Requests that wait in its queue.
    """

    ended: float
    pending: float


def counters(samples: Iterable[Sample], graph: str, dispatchers: Iterable[str]) -> dict[str, Counters]:
    """The counters of each dispatcher that is served, and under the graph's name what its pipeline has refused.

    Args:
        samples: Of the gateway's /metrics.
        graph: Name.
        dispatchers: Of its first task, names.
    """
    wanted = set(dispatchers)
    ended: dict[str, float] = {}
    pending: dict[str, float] = {}
    for sample in samples:
        model = sample.labels.get("model", "")
        if model in wanted and sample.name in _ENDED:
            ended[model] = ended.get(model, 0.0) + sample.value
        elif model in wanted and sample.name == _PENDING:
            pending[model] = sample.value
        elif sample.name == _REFUSED and sample.labels.get("graph") == graph and sample.labels.get("task") == "":
            ended[graph] = sample.value
    return {name: Counters(count, pending.get(name, 0.0)) for name, count in ended.items()}


def arrivals(before: Mapping[str, Counters], now: Mapping[str, Counters]) -> float:
    """Requests that came in between two readings of a graph's first dispatchers; at least 0.

    A dispatcher that was not there before, and one whose counter went down because it was loaded anew, have counted
    from 0.
    """
    total = 0.0
    for name, counted in now.items():
        start = before.get(name, Counters(0.0, 0.0))
        ended = counted.ended - start.ended if counted.ended >= start.ended else counted.ended
        total += ended + counted.pending - start.pending
    return max(0.0, total)
