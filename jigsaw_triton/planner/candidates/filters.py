"""Filters of configurations: those that keep a task's part of the SLO, and those that an optimal plan may need."""

from collections.abc import Collection, Sequence
from itertools import compress

import numpy as np

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.candidates.configurations import Configuration, Replica, TaskConfigurations, accuracy_budget
from jigsaw_triton.planner.domain.paths import longest_through
from jigsaw_triton.planner.domain.problem import ReplicaRange
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR, TOLERANCE
from jigsaw_triton.planner.latency.pareto import ParetoFilter


def even_parts(graph: TaskGraph) -> dict[str, float]:
    """Returns the share of the SLO for each task without task-graph-informed budgeting (T).

    It is 1 / n, where n is the number of tasks on the longest path through the task: that share of the latency, and the
    n-th root of the accuracy. Along no path do the shares add up to more than 1.
    """
    return {task: 1 / tasks for task, tasks in longest_through(graph, dict.fromkeys(graph.tasks, 1.0)).items()}


def within_even_parts(graph: TaskGraph, configurations: TaskConfigurations) -> dict[str, tuple[Configuration, ...]]:
    """Returns the configurations that keep their task's even part of the latency and of the accuracy.

    Each configuration must keep it alone, even if the accuracy SLO is a mean: without budgets over the graph nothing is
    averaged either.
    """
    parts, latency_ms, budget = even_parts(graph), graph.tasks_ms, accuracy_budget(graph)
    return {
        task: tuple(
            c
            for c in found
            if c.latency_ms <= parts[task] * latency_ms * (1 + FLOAT_ERROR)
            and c.loss <= parts[task] * budget + FLOAT_ERROR
        )
        for task, found in configurations.items()
    }


def worthwhile(
    graph: TaskGraph, configurations: TaskConfigurations, staying: Collection[Replica] = ()
) -> dict[str, tuple[Configuration, ...]]:
    """Returns the configurations that an optimal plan may need.

    Those are the ones that keep the SLO if all other tasks use their best configurations, and that are not dominated.

    Args:
        graph: Graph of the tasks.
        configurations: Task -> all its configurations.
        staying: Replicas to keep even if they are dominated.
    """
    fastest = {task: min(c.latency_ms for c in found) for task, found in configurations.items()}
    finest = {task: min(c.loss for c in found) for task, found in configurations.items()}
    quickest_through, finest_through = longest_through(graph, fastest), longest_through(graph, finest)
    budget_ms, budget = graph.tasks_ms * (1 + TOLERANCE / 10), accuracy_budget(graph) + TOLERANCE / 10

    def can_meet_slo(c: Configuration) -> bool:
        left = budget - finest_through[c.task]
        more = c.loss - finest[c.task]
        # If a mean has any slack, every variant may contribute to it.
        accurate = more <= left or (graph.slo.accuracy_mode == "mean" and left > TOLERANCE)
        return accurate and quickest_through[c.task] - fastest[c.task] + c.latency_ms <= budget_ms

    return {
        task: _undominated([c for c in found if can_meet_slo(c)], staying) for task, found in configurations.items()
    }


def _undominated(configurations: Sequence[Configuration], staying: Collection[Replica]) -> tuple[Configuration, ...]:
    """Drops configurations whose latency and throughput another one of the same variant and slice matches or beats.

    Both must be for the same range of replicas. Replacing one by the other in a plan changes neither slices, nor GPUs,
    nor accuracy, nor fan-out, and loosens all other constraints, so an optimum remains. Of equal ones, the one with
    fewer instances, then with the smaller batch, is kept.

    Args:
        configurations: Sorted configurations of a task.
        staying: Replicas to keep even if they are dominated.
    """
    groups: dict[tuple[str, str, str, ReplicaRange], int] = {}
    group = [groups.setdefault((c.variant, c.board, c.slice, c.replica_range), len(groups)) for c in configurations]
    # The filter gets ranks instead of latencies, because it shifts them by group, which is exact only for integers.
    _, rank = np.unique([c.latency_ms for c in configurations], return_inverse=True)
    front = ParetoFilter(np.array(group), np.array([c.throughput_rps for c in configurations])).front(rank)
    kept = (on_front or c.replica in staying for c, on_front in zip(configurations, front.tolist(), strict=True))
    return tuple(compress(configurations, kept))
