"""Throughput of a graph, given how the calls of each task are divided among its variants."""

import math
from collections.abc import Mapping

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.rates import calls

ByVariant = Mapping[str, Mapping[str, float]]
"""Task -> variant -> a quantity."""


def graph_throughput_rps(graph: TaskGraph, usable: ByVariant, mix: ByVariant) -> float:
    """Returns the requests a second that replicas carry if each task divides its calls among its variants by a mix.

    With the planned shares as the mix, this is the throughput that the plan relies on. With the variants' usable
    throughput as the mix, it is that of a system that hands each batch to any idle replica. With several variants of a
    task, the latter is higher than the former, or lower if that mix yields more rows.

    Args:
        graph: Graph of the replicas.
        usable: Usable throughput in calls a second.
        mix: Weights in any unit. A task that is called but has no weights carries nothing.
    """
    return of_all_tasks(throughput_by_task(graph, usable, mix))


def throughput_by_task(graph: TaskGraph, usable: ByVariant, mix: ByVariant) -> dict[str, float]:
    """Returns the requests a second that each task alone can carry; infinite for a task that is not called.

    Arguments as for `graph_throughput_rps`.
    """
    carried: dict[str, float] = {}
    for name, (total, called) in _calls(graph, mix).items():
        limits = usable.get(name, {})
        busiest = min((limits.get(v, 0.0) / rate for v, rate in called.items() if rate > 0), default=math.inf)
        carried[name] = busiest if called or total <= 0 else 0.0
    return carried


def _calls(graph: TaskGraph, mix: ByVariant) -> dict[str, tuple[float, dict[str, float]]]:
    """Returns the calls of each task for a request: all of them, and those of each variant if the task has weights."""
    found: dict[str, tuple[float, dict[str, float]]] = {}
    for name, task in graph.tasks.items():
        rule = calls(graph, task)
        total = rule.factor
        if rule.source is not None:
            total = sum(n * rule.weight(graph, variant) for variant, n in found[rule.source][1].items())
        parts = mix.get(name, {})
        whole = sum(parts.values())
        found[name] = total, {v: total * part / whole for v, part in parts.items()} if whole > 0 else {}
    return found


def of_all_tasks(carried: Mapping[str, float]) -> float:
    """Returns the throughput of the graph from that of its tasks; 0 if no task is called."""
    least = min(carried.values())
    return least if math.isfinite(least) else 0.0
