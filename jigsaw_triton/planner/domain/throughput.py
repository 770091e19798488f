"""Requests that replicas carry, by how the calls of each task are shared out among its variants."""

import math
from collections.abc import Mapping

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.rates import calls

ByVariant = Mapping[str, Mapping[str, float]]
"""Task -> variant -> a quantity."""


def graph_throughput_rps(graph: TaskGraph, usable: ByVariant, mix: ByVariant) -> float:
    """Requests a second that replicas carry where each task's calls are shared out among its variants by a mix.

    With the planned shares as the mix it is what the plan counts on. With what the variants can carry, it is what a
    system comes to that hands each batch to whichever replica is idle; with several variants of a task that goes
    further than the planned shares, or less far where the busier mix yields more rows.

    Args:
        graph: Whose.
        usable: Calls a second that may be planned for the replicas.
        mix: Parts in any unit. A task that is called and has none of them, carries nothing.
    """
    return of_all_tasks(throughput_by_task(graph, usable, mix))


def throughput_by_task(graph: TaskGraph, usable: ByVariant, mix: ByVariant) -> dict[str, float]:
    """Likewise for each task alone, were there enough of the others; infinite where it is not called."""
    carried: dict[str, float] = {}
    called: dict[str, dict[str, float]] = {}
    for name, task in graph.tasks.items():
        rule = calls(graph, task)
        total = rule.factor
        if rule.source is not None:
            total = sum(n * rule.weight(graph, variant) for variant, n in called[rule.source].items())
        parts = mix.get(name, {})
        whole = sum(parts.values())
        called[name] = {variant: total * part / whole for variant, part in parts.items()} if whole > 0 else {}
        of = usable.get(name, {})
        busiest = min((of.get(v, 0.0) / rate for v, rate in called[name].items() if rate > 0), default=math.inf)
        carried[name] = busiest if whole > 0 or total <= 0 else 0.0
    return carried


def of_all_tasks(carried: Mapping[str, float]) -> float:
    """What the graph carries where each task carries this; nothing where none is called."""
    least = min(carried.values())
    return least if math.isfinite(least) else 0.0
