"""The least compute slices of a small problem, found by trying every set of replicas that fits the GPUs."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

from jigsaw_triton.gpus.layouts import maximal_multisets
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.problem import Options, Problem
from jigsaw_triton.profiles.table import ProfileRow


def least_slices(problem: Problem, options: Options) -> int | None:
    """The slices of the best plan; None where there is none.

    Args:
        problem: Of one graph without fan-out or conditions, on GPUs of one model.
        options: `2p95`, all features, the exact formulation.
    """
    (workload,), board = problem.workloads, problem.cluster.gpus[0].board
    rows = problem.profiles[workload.graph.name].rows()
    cuts = [Counter(cut) for cut in maximal_multisets(board)]
    whole = [sum(some, Counter()) for some in itertools.combinations_with_replacement(cuts, len(problem.cluster.gpus))]
    best: int | None = None
    for counts in _counts(rows, whole, Counter()):
        used = {row: count for row, count in zip(rows, counts, strict=True) if count}
        slices = sum(n * board.profiles[row.key.slice].compute_slices for row, n in used.items())
        if (best is None or slices < best) and _serves(workload.graph, workload.demand_rps / options.utilisation, used):
            best = slices
    return best


def _counts(rows: Sequence[ProfileRow], whole: list[Counter[str]], taken: Counter[str]) -> Iterator[tuple[int, ...]]:
    """Every number of replicas of each row that the GPUs have slices for."""
    if not rows:
        yield ()
        return
    count = 0
    while any(taken <= cut for cut in whole):
        for rest in _counts(rows[1:], whole, taken):
            yield (count, *rest)
        count, taken = count + 1, taken + Counter({rows[0].key.slice: 1})


def _serves(graph: TaskGraph, rate_rps: float, used: dict[ProfileRow, int]) -> bool:
    latency_ms, accuracy = 0.0, 1.0
    for task in graph.tasks.values():
        own = {row: n for row, n in used.items() if row.key.task == task.name}
        if sum(n * row.throughput_rps for row, n in own.items()) < rate_rps or not own:
            return False
        latency_ms += max(2 * row.latency_p95_ms for row in own)
        accuracy *= min(task.variant(row.key.variant).accuracy for row in own) / task.best_accuracy
    return latency_ms <= graph.slo.latency_ms * (1 + 1e-9) and accuracy >= graph.slo.accuracy * (1 - 1e-9)
