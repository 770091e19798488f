"""From a profile to the latency that a task is planned to take."""

import math
from collections.abc import Iterable, Sequence

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.problem import LOADS, Options
from jigsaw_triton.planner.queueing import Case, latencies_ms
from jigsaw_triton.planner.rates import request_rows
from jigsaw_triton.profiles.service import ServiceTime, service_times
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from jigsaw_triton.runtime.chains import members

Load = tuple[float, float]
"""A share of a replica's profiled throughput, and the milliseconds that a task is planned to take at it."""


def loads(
    graph: TaskGraph, usable: Sequence[ProfileRow], table: ProfileTable, options: Options
) -> dict[ProfileKey, list[Load]]:
    """How configurations may be used: the more of them, the longer they take.

    Args:
        graph: Whose tasks they do.
        usable: Their profiles.
        table: All profiles of the graph, for what is known of smaller batches.
        options: How to plan.
    """
    rows = request_rows(graph)
    if options.latency_model == "2p95":
        return {row.key: [(options.usable, two_p95_ms(row, rows[row.key.task]))] for row in usable}
    times = service_times(table)
    cases = [
        Case(times[row.key], row.key.instances, load * _full(row, times[row.key]), rows[row.key.task])
        for row in usable
        for load in LOADS
    ]
    latencies = iter(latencies_ms(tuple(cases), task_quantile(graph)))
    return {row.key: _rising(zip(LOADS, latencies, strict=False)) for row in usable}


def _full(row: ProfileRow, time: ServiceTime) -> float:
    """The load at the profiled throughput; more than 1 where the profiled latencies do not allow for that."""
    return row.throughput_rps * time.occupied_ms / (1000 * row.key.batch * row.key.instances)


def _rising(found: Iterable[Load]) -> list[Load]:
    """Those that are possible, no latency below that of a smaller load: predictions do not rise quite everywhere."""
    rising, least = list[Load](), 0.0
    for load, ms in found:
        least = max(least, ms)
        if math.isfinite(least):
            rising.append((load, least))
    return rising


def task_quantile(graph: TaskGraph) -> float:
    """The quantile that each task's latency is planned at, so that a request keeps the SLO's percentile.

    Percentiles do not add up along a path. But a request is late only if one of its tasks takes longer than planned,
    and of n tasks, each at 1 - (1 - q) / n, that happens to at most a share 1 - q, however they depend on each other
    (the union bound over all tasks of the graph, since where paths join it is not one path alone that counts). It is
    careful: were the tasks independent, the sum would stay far below the sum of such quantiles. What is left in hand
    covers what the queueing model leaves out: that a task hands on its results in batches, not one by one.
    """
    return 1 - (1 - graph.slo.percentile / 100) / sum(len(members(task)) for task in graph.tasks)


def two_p95_ms(row: ProfileRow, rows: float) -> float:
    """Latency of a task for one request by the rule of twice the 95th percentile, extended to fan-out.

    Devata, Singh and Adve (arXiv 2603.08797) plan with 2 x p95: one batch is waited for, one is the request's own. A
    request that brings `rows` rows to a task fills ceil(rows / (batch x instances)) rounds of a replica, all instances
    running at once (the profile is of all of them busy). So it takes p95 x (1 + rounds): with one row the paper's rule.
    That the rows of a request may spread over several replicas is not counted on; that a request may bring more rows
    than expected is not guarded against, beyond what a percentile for every batch leaves in hand. The SLO's own
    percentile does not enter.

    Args:
        row: The configuration's profile.
        rows: Expected rows a request.
    """
    rounds = max(1, math.ceil(rows / (row.key.batch * row.key.instances) - 1e-9))
    return row.latency_p95_ms * (1 + rounds)
