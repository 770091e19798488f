"""The configurations that a plan may choose from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jigsaw_triton.gpus.model import Board
from jigsaw_triton.graph.model import Task, TaskGraph
from jigsaw_triton.planner.latency import two_p95_ms
from jigsaw_triton.planner.paths import longest_through
from jigsaw_triton.planner.problem import Options
from jigsaw_triton.planner.rates import request_rows
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable

TOLERANCE = 1e-5
"""Relative; what solvers and sums of floating-point numbers may miss a limit by."""


@dataclass(frozen=True, slots=True, order=True)
class Configuration:
    """A segment on one model of GPU, and what a replica of it takes and gives.

    Attributes:
        graph: Name of the graph.
        task: Name of the task.
        variant: Of the task.
        board: Name of the model of GPU.
        slice: Kind of MIG instance.
        instances: Triton instance count.
        batch: Largest batch.
        compute_slices: That the slice takes.
        latency_ms: That the task is planned to take with it.
        throughput_rps: Calls a second that may be planned for it.
        loss: Minus the logarithm of its accuracy relative to the task's best variant: adds up along a path.
    """

    graph: str
    task: str
    variant: str
    board: str
    slice: str
    instances: int
    batch: int
    compute_slices: int
    latency_ms: float
    throughput_rps: float
    loss: float


TaskConfigurations = Mapping[str, tuple[Configuration, ...]]
"""Task -> its configurations, sorted."""


def loss(task: Task, variant: str) -> float:
    """Minus the logarithm of a variant's accuracy relative to the task's best."""
    return -math.log(task.variant(variant).accuracy / task.best_accuracy)


def accuracy_budget(graph: TaskGraph) -> float:
    """The largest loss along a path. `mean` is held as `floor`: what every request gets, the average gets."""
    return -math.log(graph.slo.accuracy)


def why_not(row: ProfileRow, board: Board) -> str | None:
    """Why a profiled configuration cannot be had on this board; None where it can."""
    profile = board.profiles.get(row.key.slice)
    if profile is None:
        return f"{board.name} has no slice {row.key.slice}"
    if profile.memory_mib is not None and row.memory_mib > profile.memory_mib:
        return f"{row.memory_mib:.0f} MiB do not fit {row.key.slice} of {board.name} with {profile.memory_mib} MiB"
    return None


def available(
    graph: TaskGraph, table: ProfileTable, boards: Sequence[Board], options: Options
) -> dict[str, tuple[Configuration, ...]]:
    """Task -> every profiled configuration that these boards can hold, whatever the SLO; empty where there is none."""
    by_name = {board.name: board for board in boards}
    rows: dict[str, list[ProfileRow]] = {name: [] for name in graph.tasks}
    for row in table.rows():
        task, board = graph.tasks.get(row.key.task), by_name.get(row.key.gpu)
        known = task is not None and row.key.variant in {v.name for v in task.variants}
        if board is not None and known and why_not(row, board) is None and row.throughput_rps > 0:
            rows[row.key.task].append(row)
    at_once = request_rows(graph)

    def configuration(row: ProfileRow) -> Configuration:
        key = row.key
        return Configuration(
            graph=graph.name,
            task=key.task,
            variant=key.variant,
            board=key.gpu,
            slice=key.slice,
            instances=key.instances,
            batch=key.batch,
            compute_slices=by_name[key.gpu].profiles[key.slice].compute_slices,
            latency_ms=two_p95_ms(row, at_once[key.task]),
            throughput_rps=options.utilisation * row.throughput_rps,
            loss=loss(graph.tasks[key.task], key.variant),
        )

    return {name: tuple(sorted(map(configuration, found))) for name, found in rows.items()}


def worthwhile(graph: TaskGraph, configurations: TaskConfigurations) -> dict[str, tuple[Configuration, ...]]:
    """Those that some optimal plan needs: within the SLO with the best of the other tasks, and not dominated."""
    fastest = {task: min(c.latency_ms for c in found) for task, found in configurations.items()}
    finest = {task: min(c.loss for c in found) for task, found in configurations.items()}
    quickest_through, finest_through = longest_through(graph, fastest), longest_through(graph, finest)
    budget_ms, budget = graph.slo.latency_ms * (1 + TOLERANCE / 10), accuracy_budget(graph) + TOLERANCE / 10

    def can_meet_slo(c: Configuration) -> bool:
        return (
            quickest_through[c.task] - fastest[c.task] + c.latency_ms <= budget_ms
            and finest_through[c.task] - finest[c.task] + c.loss <= budget
        )

    return {task: _undominated([c for c in found if can_meet_slo(c)]) for task, found in configurations.items()}


def _undominated(configurations: Sequence[Configuration]) -> tuple[Configuration, ...]:
    """Leaves out what another of the same variant on the same slice is at least as fast as, in both senses.

    Replacing one by the other in a plan changes neither slices, nor GPUs, nor accuracy, nor fan-out, and loosens the
    rest: so an optimum remains. Of equals the one of fewer instances, then smaller batch, stays.
    """
    kept: list[Configuration] = []
    best: dict[tuple[str, str, str], float] = {}
    by_latency = sorted(configurations, key=lambda c: (c.latency_ms, -c.throughput_rps, c))
    for c in by_latency:
        place = (c.variant, c.board, c.slice)
        if c.throughput_rps > best.get(place, 0.0):
            best[place] = c.throughput_rps
            kept.append(c)
    return tuple(sorted(kept))
