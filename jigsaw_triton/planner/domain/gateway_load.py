"""Processor time that a plan asks of the gateway's host, by the requests, calls and bytes that it carries.

The costs were measured by `python -m benchmarks.dataplane cost` on cores of an AMD EPYC server, with batches as eight
clients make them; other processors differ by a factor of two or so.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jigsaw_triton.graph.model import TaskGraph, TensorType
from jigsaw_triton.planner.domain.plan import Plan

REQUEST_US = 80.0
"""Microseconds for a request beside its calls."""

CALL_US = 50.0
"""Microseconds for a request at one task."""

MEGABYTE_US = 1300.0
"""Microseconds for a megabyte to or from a worker by shared memory, the client's part included."""

_ELEMENT_BYTES = {
    **dict.fromkeys(("BOOL", "UINT8", "INT8"), 1),
    **dict.fromkeys(("UINT16", "INT16", "FP16", "BF16"), 2),
    **dict.fromkeys(("UINT32", "INT32", "FP32"), 4),
    **dict.fromkeys(("UINT64", "INT64", "FP64"), 8),
}


@dataclass(frozen=True, slots=True)
class GatewayLoad:
    """Load of a gateway at the planned demand.

    Attributes:
        requests_rps: Requests a second.
        calls_rps: Requests at tasks a second, all tasks together.
        megabytes_s: Megabytes a second to and from workers, of tensors whose size the graphs tell.
        sized: Whether the graphs tell the size of all tensors.
    """

    requests_rps: float
    calls_rps: float
    megabytes_s: float
    sized: bool

    @property
    def processors(self) -> float:
        """Processors that the gateway keeps busy."""
        return (self.requests_rps * REQUEST_US + self.calls_rps * CALL_US + self.megabytes_s * MEGABYTE_US) / 1e6


def gateway_load(graphs: Mapping[str, TaskGraph], plan: Plan) -> GatewayLoad:
    """What a plan asks of the gateway.

    Args:
        graphs: Graphs of the plan, by name.
        plan: Plan with its rates.
    """
    requests = calls = megabytes = 0.0
    sized = True
    for name, graph_plan in plan.graphs.items():
        graph = graphs[name]
        requests += graph_plan.demand_rps
        for task_name, task_plan in graph_plan.tasks.items():
            task = graph.tasks[task_name]
            calls += min(task_plan.rate_rps, graph_plan.demand_rps)
            # Rows that a task makes travel at the rate of whoever goes through them.
            made = {key: kind for key, kind in task.outputs.items() if kind.shape[:1] != (-1,)}
            for kind in (*(graph.input_type(task, key) for key in task.inputs), *made.values()):
                size = _megabytes(kind)
                sized = sized and size is not None
                megabytes += task_plan.rate_rps * (size or 0.0)
    return GatewayLoad(requests, calls, megabytes, sized)


def _megabytes(kind: TensorType) -> float | None:
    """Size of a tensor of one call; None where it varies."""
    element = _ELEMENT_BYTES.get(kind.dtype)
    if element is None or any(dim < 0 for dim in kind.shape):
        return None
    return element * math.prod(kind.shape) / 1e6
