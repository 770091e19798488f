"""Exhaustive search for the fewest compute slices of a small problem: it tries every set of replicas that fits."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from jigsaw_triton.gpus.layouts import maximal_multisets
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.problem import LOADS, MAX_SERVERS, REPLICA_RANGES, Options, Problem
from jigsaw_triton.planner.latency.latency import task_quantile
from jigsaw_triton.planner.latency.queueing import Case, latencies_ms
from jigsaw_triton.profiles.service import service_times
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from tests.fakes.replicas import replica_counts, within

_Uses = Mapping[int, Mapping[ProfileRow, Sequence[tuple[float, float]]]]
"""Index of a range of replica counts -> profile -> pairs of a share of its throughput and the latency at that load."""


def least_slices(problem: Problem, options: Options) -> int | None:
    """Returns the number of slices of the best plan; None if no plan exists.

    Args:
        problem: Problem with one graph, without fan-out or conditions, on GPUs of one model.
        options: Options with all features and the exact formulation.
    """
    (workload,), board = problem.workloads, problem.cluster.gpus[0].board
    table = problem.profiles[workload.graph.name]
    rows, uses = table.rows(), _uses(workload.graph, table, options)
    cuts = [Counter(cut) for cut in maximal_multisets(board)]
    whole = [sum(some, Counter()) for some in itertools.combinations_with_replacement(cuts, len(problem.cluster.gpus))]
    best: int | None = None
    for counts in replica_counts(rows, within(whole)):
        used = {row: count for row, count in zip(rows, counts, strict=True) if count}
        slices = sum(n * board.profiles[row.key.slice].compute_slices for row, n in used.items())
        if (best is None or slices < best) and _serves(workload.graph, workload.demand_rps, used, uses):
            best = slices
    return best


def _uses(graph: TaskGraph, table: ProfileTable, options: Options) -> _Uses:
    if options.latency_model == "2p95":
        return {0: {row: [(options.utilisation, 2 * row.latency_p95_ms)] for row in table.rows()}}
    return {
        number: {row: _loads(graph, table, row, number) for row in table.rows()}
        for number in range(len(REPLICA_RANGES))
    }


def _loads(graph: TaskGraph, table: ProfileTable, row: ProfileRow, number: int) -> list[tuple[float, float]]:
    time, k, (first, last) = service_times(table)[row.key], row.key.instances, REPLICA_RANGES[number]
    full = row.throughput_rps * time.occupied_ms / (1000 * row.key.batch * k)
    found, slowest = [], time.full_ms(task_quantile(graph))
    for load in LOADS:
        cases = tuple(Case(time, int(min(n * k, MAX_SERVERS)), load * full) for n in (first, last))
        slowest = max(slowest, *latencies_ms(cases, task_quantile(graph)))
        found.append((load, slowest))
    return found


def _serves(graph: TaskGraph, rate_rps: float, used: Mapping[ProfileRow, int], uses: _Uses) -> bool:
    latency_ms, accuracy = 0.0, 1.0
    for task in graph.tasks.values():
        own = {row: n for row, n in used.items() if row.key.task == task.name}
        ranges = [
            number
            for number in uses
            if len(uses) == 1 or REPLICA_RANGES[number][0] <= sum(own.values()) <= REPLICA_RANGES[number][1]
        ]
        if not own:
            return False
        latency_ms += min(_least_ms(rate_rps, own, uses[number]) for number in ranges)
        accuracy *= min(task.variant(row.key.variant).accuracy for row in own) / task.best_accuracy
    return latency_ms <= graph.slo.latency_ms * (1 + 1e-9) and accuracy >= graph.slo.accuracy * (1 - 1e-9)


def _least_ms(
    rate_rps: float, own: Mapping[ProfileRow, int], uses: Mapping[ProfileRow, Sequence[tuple[float, float]]]
) -> float:
    """Returns the lowest latency at which the replicas, all in use, can serve a rate; infinite if they cannot."""
    for most_ms in sorted({ms for row in own for _, ms in uses[row]}):
        usable = {row: max((load for load, ms in uses[row] if ms <= most_ms), default=0.0) for row in own}
        if all(usable.values()) and sum(n * usable[row] * row.throughput_rps for row, n in own.items()) >= rate_rps:
            return most_ms
    return math.inf
