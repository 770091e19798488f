"""Requests that have arrived, from a server's counters. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from jigsaw_triton.servers.metrics import Sample

_ENDED = ("nv_inference_request_success", "nv_inference_request_failure")
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


def counters(samples: Iterable[Sample], graphs: Iterable[str]) -> dict[str, Counters]:
    """The counters of each graph's front; graphs that are not served are left out.

    Args:
        samples: Of the gateway's /metrics.
        graphs: Names.
    """
    wanted = set(graphs)
    ended: dict[str, float] = {}
    pending: dict[str, float] = {}
    for sample in samples:
        model = sample.labels.get("model", "")
        if model in wanted and sample.name in _ENDED:
            ended[model] = ended.get(model, 0.0) + sample.value
        elif model in wanted and sample.name == _PENDING:
            pending[model] = sample.value
    return {name: Counters(count, pending.get(name, 0.0)) for name, count in ended.items()}
