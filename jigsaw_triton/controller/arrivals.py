"""Requests that have arrived, from a server's counters. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from jigsaw_triton.servers.metrics import Sample

_ENDED = {"nv_inference_request_success": 1.0, "nv_inference_request_failure": 0.5}
"""Counter -> requests that one count stands for."""

_PENDING = "nv_inference_pending_request_count"


@dataclass(frozen=True, slots=True)
class Counters:
    """Of one graph at the gateway.

    Attributes:
        ended: Requests answered or refused since the model was loaded: restarts at 0 when it is loaded anew.
        pending: Requests that have come in and wait or are being worked on.
    """

    ended: float
    pending: float


def arrivals(before: Counters | None, now: Counters) -> float:
    """Requests that came in between two readings; at least 0.

    A counter that went down was reset in between: what it counts now has come in since.
    """
    if before is None:
        return 0.0
    ended = now.ended - before.ended if now.ended >= before.ended else now.ended
    return max(0.0, ended + now.pending - before.pending)


def counters(samples: Iterable[Sample], entries: Mapping[str, Collection[str]]) -> dict[str, Counters]:
    """The counters of each graph; graphs that are not served are left out.

    Success and failure are counted at a graph's front. Triton 2.51 counts a failed request of an ensemble twice. What
    waits shows only at the model that it waits for, and waits of later steps are answered for at the first.

    Args:
        samples: Of the gateway's /metrics.
        entries: Graph -> the models where its requests first queue: the dispatchers, of every loaded generation, of
            one task that each request begins with.
    """
    ended: dict[str, float] = {}
    waits: dict[str, float] = {}
    for sample in samples:
        model = sample.labels.get("model", "")
        if sample.name in _ENDED and model in entries:
            ended[model] = ended.get(model, 0.0) + sample.value * _ENDED[sample.name]
        elif sample.name == _PENDING:
            waits[model] = waits.get(model, 0.0) + sample.value
    return {
        graph: Counters(ended[graph], sum(waits.get(name, 0.0) for name in names))
        for graph, names in entries.items()
        if graph in ended
    }
