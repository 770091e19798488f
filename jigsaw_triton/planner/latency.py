"""From a profile to the latency that a task is planned to take."""

import math
from collections.abc import Callable

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.problem import LOADS, Options
from jigsaw_triton.planner.queueing import latency_ms
from jigsaw_triton.planner.rates import request_rows
from jigsaw_triton.profiles.service import service_times
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable

Load = tuple[float, float]
"""A share of a replica's profiled throughput, and the milliseconds that a task is planned to take at it."""


def loads(graph: TaskGraph, table: ProfileTable, options: Options) -> Callable[[ProfileRow], list[Load]]:
    """How a row's configuration may be used: the more of it, the longer it takes."""
    rows = request_rows(graph)
    if options.latency_model == "2p95":
        return lambda row: [(options.usable, two_p95_ms(row, rows[row.key.task]))]
    times, quantile = service_times(table), task_quantile(graph)

    def queue(row: ProfileRow) -> list[Load]:
        time, found, ms = times[row.key], list[Load](), 0.0
        # Latencies and throughput of a profile need not agree on how much an instance can do.
        full = row.throughput_rps * time.occupied_ms / (1000 * row.key.batch * row.key.instances)
        for load in LOADS:
            ms = max(ms, latency_ms(time, row.key.instances, load * full, rows[row.key.task], quantile))
            if math.isfinite(ms):
                found.append((load, ms))
        return found

    return queue


def task_quantile(graph: TaskGraph) -> float:
    """The quantile that each task's latency is planned at, so that a request keeps the SLO's percentile.

    Percentiles do not add up along a path. But a request is late only if one of its tasks takes longer than planned,
    and of n tasks, each at 1 - (1 - q) / n, that happens to at most a share 1 - q, however they depend on each other
    (the union bound over all tasks of the graph, since where paths join it is not one path alone that counts). It is
    careful: were the tasks independent, the sum would stay far below the sum of such quantiles. What is left in hand
    covers what the queueing model leaves out: that a task hands on its results in batches, not one by one.
    """
    return 1 - (1 - graph.slo.percentile / 100) / len(graph.tasks)


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
