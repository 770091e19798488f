"""Processor time that a plan needs on the gateway's host, estimated from its requests, calls and bytes.

The costs were measured by `python -m benchmarks.dataplane cost` on cores of an AMD EPYC server, with the batches that
eight clients produce, when calls still went through Triton's HTTP endpoint. Since they go through the listener of a
worker (ADR 28), a request takes 38 microseconds, a call 40 and a megabyte 1,204 (`benchmarks/RESULTS.md`). Plans keep
the higher costs, because other processors differ by a factor of about two.

Planned latencies do not contain these costs, because the planned quantiles leave room for them. With emulated models,
whose profiles contain no transport, p99 was 0.63 to 1.09 times the planned latency on three graphs, one of which moves
2.7 MB a request (`python -m benchmarks.dataplane promise`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jigsaw_triton.graph.model import Task, TaskGraph
from jigsaw_triton.graph.tensors import TensorType
from jigsaw_triton.planner.domain.plan import Plan

REQUEST_US = 80.0
"""Microseconds for a request, without its calls. Measured."""

CALL_US = 50.0
"""Microseconds for a call, one request at one task. Measured."""

MEGABYTE_US = 1300.0
"""Microseconds for a megabyte to or from a worker through shared memory, the client's side included. Measured."""

_ELEMENT_BYTES = {
    **dict.fromkeys(("BOOL", "UINT8", "INT8"), 1),
    **dict.fromkeys(("UINT16", "INT16", "FP16", "BF16"), 2),
    **dict.fromkeys(("UINT32", "INT32", "FP32"), 4),
    **dict.fromkeys(("UINT64", "INT64", "FP64"), 8),
}
"""Triton data type -> bytes of an element."""


@dataclass(frozen=True, slots=True)
class GatewayLoad:
    """Load of a gateway at the planned demand.

    Attributes:
        requests_rps: Requests a second.
        calls_rps: Calls a second, summed over all tasks.
        megabytes_s: Megabytes a second to and from workers, of the tensors whose sizes the graphs fix.
    """

    requests_rps: float
    calls_rps: float
    megabytes_s: float

    @property
    def processors(self) -> float:
        """Processors that the gateway keeps busy."""
        return (self.requests_rps * REQUEST_US + self.calls_rps * CALL_US + self.megabytes_s * MEGABYTE_US) / 1e6


VARYING = 224
"""Elements along a dimension that varies, where calls are compared by their bytes: the side of a usual image."""

TEXT_BYTES = 64
"""Bytes of a text, where calls are compared by their bytes."""


def call_megabytes(graph: TaskGraph, task: str, variant: str) -> float:
    """Returns the megabytes that a call moves between gateway and worker, with `VARYING` and `TEXT_BYTES` assumed."""
    node, yields = graph.tasks[task], graph.tasks[task].variant(variant).yields
    inputs = [_megabytes(_sized(graph.input_type(node, name))) for name in node.inputs]
    outputs = [_megabytes(_sized(kind, yields.get(name))) for name, kind in node.outputs.items()]
    return sum((*inputs, *outputs))


def _sized(kind: TensorType, rows: float | None = None) -> TensorType:
    """Returns a type with a size for each dimension: for the first one the number of rows, if it is known."""
    first = (-1 if rows is None else math.ceil(rows), *kind.shape[1:]) if kind.shape[:1] == (-1,) else kind.shape
    shape = tuple(VARYING if dimension < 0 else dimension for dimension in first)
    return TensorType("UINT8", (*shape, TEXT_BYTES)) if kind.dtype == "BYTES" else TensorType(kind.dtype, shape)


def gateway_load(graphs: Mapping[str, TaskGraph], plan: Plan) -> GatewayLoad:
    """Estimates the load that a plan puts on the gateway.

    Args:
        graphs: Graph name -> graph, for each graph of the plan.
        plan: Plan with its demands and call rates.
    """
    requests = calls = megabytes = 0.0
    for name, graph_plan in plan.graphs.items():
        graph = graphs[name]
        requests += graph_plan.demand_rps
        for task_name, task_plan in graph_plan.tasks.items():
            calls += min(task_plan.rate_rps, graph_plan.demand_rps)
            megabytes += task_plan.rate_rps * _fixed_megabytes(graph, graph.tasks[task_name])
    return GatewayLoad(requests, calls, megabytes)


def tensors_us(graph: TaskGraph, task: Task) -> float:
    """Returns microseconds of processor time for the tensors of a call whose sizes the graph fixes."""
    return MEGABYTE_US * _fixed_megabytes(graph, task)


def _fixed_megabytes(graph: TaskGraph, task: Task) -> float:
    """Returns the megabytes of the tensors of a call whose sizes the graph fixes."""
    # Output with rows is counted as the input of the task that iterates over it, at that task's rate.
    made = (kind for kind in task.outputs.values() if kind.shape[:1] != (-1,))
    return sum(_megabytes(kind) for kind in (*(graph.input_type(task, key) for key in task.inputs), *made))


def _megabytes(kind: TensorType) -> float:
    """Returns the size of a tensor of one call; 0 if it varies."""
    element = _ELEMENT_BYTES.get(kind.dtype)
    if element is None or any(dim < 0 for dim in kind.shape):
        return 0.0
    return element * math.prod(kind.shape) / 1e6
