"""The configurations that a plan may choose from."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

from jigsaw_triton.gpus.model import Board
from jigsaw_triton.graph.model import Task, TaskGraph
from jigsaw_triton.planner.domain.paths import longest_through
from jigsaw_triton.planner.domain.problem import Options, ReplicaRange
from jigsaw_triton.planner.latency.latency import ANY_NUMBER, Use, uses
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable

TOLERANCE = 1e-5
"""Relative; what solvers and sums of floating-point numbers may miss a limit by."""

PAPER_INSTANCES = 4
"""The most processes of one segment in the paper."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """What a replica takes of a slice that it shares.

    Attributes:
        cycle_ms: The most that a turn of each model in the slice may take together.
        ms: That its own turn takes.
        cycle: Its part of the cycle.
        load: Its part of the load that the slice may have.
        memory: Its part of the slice's memory.
        least: The part of a slice that it costs at least, by what is sure to add up over the models in a slice.
        rounds: Batches that a request is planned to wait for, its own among them.
        steps: Executions, one after the other, of one batch: the tasks of a chain that is called at once.
    """

    cycle_ms: float
    ms: float
    cycle: float
    load: float
    memory: float
    least: float = 0.0
    rounds: float = 0.0
    steps: int = 1

    def latency_ms(self, cycle_ms: float) -> float:
        """What a request is planned to take where one turn of each model takes so long: each step waits for others."""
        return self.rounds * (self.ms + self.steps * (cycle_ms - self.ms))


ALONE = Turn(0.0, 0.0, 0.0, 0.0, 0.0)
"""Of a replica that has its slice to itself."""


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
        utilisation: Share of its profiled throughput that may be planned for at this latency.
        turn: What it takes of a slice that it shares; `ALONE` where it has one to itself.
        among: Numbers of replicas of the task that the latency holds for.
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
    utilisation: float = 1.0
    turn: Turn = ALONE
    among: ReplicaRange = ANY_NUMBER

    @property
    def shares(self) -> bool:
        """Whether it shares a slice."""
        return self.turn.cycle_ms > 0

    @property
    def replica(self) -> "Replica":
        """What a replica of it is, however busy."""
        return (self.graph, self.task, self.variant, self.board, self.slice, self.instances, self.batch)


Replica = tuple[str, str, str, str, str, int, int]
"""Graph, task, variant, model of GPU, slice, instances and batch."""

TaskConfigurations = Mapping[str, tuple[Configuration, ...]]
"""Task -> its configurations, sorted."""


def loss(task: Task, variant: str) -> float:
    """Minus the logarithm of a variant's accuracy relative to the task's best."""
    return -math.log(task.variant(variant).accuracy / task.best_accuracy)


def accuracy_budget(graph: TaskGraph) -> float:
    """The largest loss along a path: of what a request gets where the accuracy is a floor, else of the mean."""
    return -math.log(graph.slo.accuracy)


def why_not(row: ProfileRow, task: Task, board: Board, options: Options) -> str | None:
    """Why a profiled configuration cannot be had on this board, or may not be used; None where it can and may."""
    profile = board.profiles.get(row.key.slice)
    if profile is None:
        return f"{board.name} has no slice {row.key.slice}"
    if profile.memory_mib is not None and row.memory_mib > profile.memory_mib:
        return f"{row.memory_mib:.0f} MiB do not fit {row.key.slice} of {board.name} with {profile.memory_mib} MiB"
    if "S" not in options.features and (profile.compute_slices < board.compute_slices or row.key.instances > 1):
        return "without spatial partitioning (S) a replica takes a whole GPU and one instance"
    if "A" not in options.features and loss(task, row.key.variant) > 0:
        return "without accuracy scaling (A) a task has its most accurate variant"
    if options.formulation == "paper" and row.key.instances > PAPER_INSTANCES:
        return f"the paper's formulation has at most {PAPER_INSTANCES} instances"
    return None


def available(
    graph: TaskGraph,
    table: ProfileTable,
    boards: Sequence[Board],
    options: Options,
    staying: Collection[Replica] = (),
) -> dict[str, tuple[Configuration, ...]]:
    """Task -> every profiled configuration that some plan may need on these boards, whatever the SLO.

    Args:
        graph: Whose.
        table: Its profiles.
        boards: To be had.
        options: How to plan.
        staying: Replicas that are worth having though they are dominated.
    """
    by_name = {board.name: board for board in boards}
    rows: dict[str, list[ProfileRow]] = {name: [] for name in graph.tasks}
    for row in table.rows():
        task, board = graph.tasks.get(row.key.task), by_name.get(row.key.gpu)
        if task is None or board is None or row.key.variant not in {v.name for v in task.variants}:
            continue
        if row.throughput_rps > 0 and why_not(row, task, board, options) is None:
            rows[row.key.task].append(row)
    stay = {
        ProfileKey(board, task, variant, kind, instances, batch)
        for name, task, variant, board, kind, instances, batch in staying
        if name == graph.name
    }
    usable = uses(graph, [row for found in rows.values() for row in found], table, options, stay)
    losses = {(name, v.name): loss(task, v.name) for name, task in graph.tasks.items() for v in task.variants}

    def configuration(row: ProfileRow, use: Use) -> Configuration:
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
            latency_ms=use.latency_ms,
            throughput_rps=use.utilisation * row.throughput_rps,
            loss=losses[key.task, key.variant],
            utilisation=use.utilisation,
            among=use.among,
        )

    def in_order(found: Iterable[ProfileRow]) -> Iterator[Configuration]:
        # Nearly, so that sorting them takes no time.
        for row in sorted(found, key=_replica_order):
            yield from (configuration(row, use) for use in sorted(usable[row.key], key=_latency))

    return {name: tuple(sorted(in_order(found))) for name, found in rows.items()}


def _replica_order(row: ProfileRow) -> tuple[str, str, str, int, int]:
    return (row.key.variant, row.key.gpu, row.key.slice, row.key.instances, row.key.batch)


def _latency(use: Use) -> float:
    return use.latency_ms


def by_load(everything: Mapping[str, TaskConfigurations]) -> dict[tuple[Replica, ReplicaRange], list[Configuration]]:
    """The configurations that differ in utilisation alone, by rising utilisation."""
    found: dict[tuple[Replica, ReplicaRange], list[Configuration]] = {}
    for c in sorted((c for tasks in everything.values() for of in tasks.values() for c in of), key=_utilisation):
        found.setdefault((c.replica, c.among), []).append(c)
    return found


def _utilisation(c: Configuration) -> float:
    return c.utilisation


def merged(counts: Mapping[Configuration, int]) -> dict[Configuration, int]:
    """The same replicas, those that differ in utilisation alone as one: at the mean of it, and the longer latency."""
    alike: dict[tuple[Replica, Turn], list[tuple[Configuration, int]]] = {}
    for c, n in counts.items():
        alike.setdefault((c.replica, c.turn), []).append((c, n))
    return dict(_mean(found) for found in alike.values())


def _mean(found: Sequence[tuple[Configuration, int]]) -> tuple[Configuration, int]:
    if len(found) == 1:
        return found[0]
    total = sum(n for _, n in found)
    slowest = max((c for c, _ in found), key=lambda c: c.latency_ms)
    mean = replace(
        slowest,
        throughput_rps=sum(n * c.throughput_rps for c, n in found) / total,
        utilisation=sum(n * c.utilisation for c, n in found) / total,
    )
    return mean, total


def even_parts(graph: TaskGraph) -> dict[str, float]:
    """What a task may use of the SLO without task-graph-informed budgeting (T): one part of its longest path's tasks.

    Of latency that part, of accuracy the root of so many. Along no path do the parts add up to more than 1.
    """
    return {task: 1 / tasks for task, tasks in longest_through(graph, dict.fromkeys(graph.tasks, 1.0)).items()}


def within_even_parts(graph: TaskGraph, configurations: TaskConfigurations) -> dict[str, tuple[Configuration, ...]]:
    """Those that keep their task's even part of the latency and of the accuracy.

    Each for itself, also where the mean accuracy counts: without budgets over the graph nothing is averaged either.
    """
    parts, latency_ms, budget = even_parts(graph), graph.tasks_ms, accuracy_budget(graph)
    return {
        task: tuple(
            c
            for c in found
            if c.latency_ms <= parts[task] * latency_ms * (1 + _ROUNDING) and c.loss <= parts[task] * budget + _ROUNDING
        )
        for task, found in configurations.items()
    }


def worthwhile(
    graph: TaskGraph, configurations: TaskConfigurations, staying: Collection[Replica] = ()
) -> dict[str, tuple[Configuration, ...]]:
    """Those that some optimal plan needs: within the SLO with the best of the other tasks, and not dominated.

    Args:
        graph: Whose.
        configurations: All.
        staying: Replicas that are worth having though they are dominated.
    """
    fastest = {task: min(c.latency_ms for c in found) for task, found in configurations.items()}
    finest = {task: min(c.loss for c in found) for task, found in configurations.items()}
    quickest_through, finest_through = longest_through(graph, fastest), longest_through(graph, finest)
    budget_ms, budget = graph.tasks_ms * (1 + TOLERANCE / 10), accuracy_budget(graph) + TOLERANCE / 10

    def can_meet_slo(c: Configuration) -> bool:
        left = budget - finest_through[c.task]
        more = c.loss - finest[c.task]
        # To a mean that has room, every variant may contribute.
        accurate = more <= left or (graph.slo.accuracy_mode == "mean" and left > TOLERANCE)
        return accurate and quickest_through[c.task] - fastest[c.task] + c.latency_ms <= budget_ms

    return {
        task: _undominated([c for c in found if can_meet_slo(c)], staying) for task, found in configurations.items()
    }


def _undominated(configurations: Sequence[Configuration], staying: Collection[Replica]) -> tuple[Configuration, ...]:
    """Leaves out what another of the same variant on the same slice is at least as fast as, in both senses.

    Both among as many replicas. Replacing one by the other in a plan changes neither slices, nor GPUs, nor accuracy,
    nor fan-out, and loosens the rest: so an optimum remains. Of equals the one of fewer instances, then smaller batch,
    stays.
    """
    configurations = sorted(configurations)
    best: dict[tuple[str, str, str, ReplicaRange], float] = {}
    kept = [bool(staying) and c.replica in staying for c in configurations]
    # Of equals the first comes first.
    for i in sorted(range(len(kept)), key=lambda i: (configurations[i].latency_ms, -configurations[i].throughput_rps)):
        c = configurations[i]
        place = (c.variant, c.board, c.slice, c.among)
        if c.throughput_rps > best.get(place, 0.0):
            best[place] = c.throughput_rps
            kept[i] = True
    return tuple(compress(configurations, kept))
