"""The configurations that a plan may choose from: what is profiled and can be used, with its cost and performance."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from jigsaw_triton.gpus.model import Board
from jigsaw_triton.graph.model import Task, TaskGraph
from jigsaw_triton.planner.domain.features import has
from jigsaw_triton.planner.domain.problem import Options, ReplicaRange
from jigsaw_triton.planner.domain.rates import request_rows
from jigsaw_triton.planner.domain.remembered import remembered
from jigsaw_triton.planner.latency.latency import ANY_NUMBER, Use, task_quantile, uses, uses_by_rows
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable

PAPER_INSTANCES = 4
"""Largest number of instances of a replica in the paper's formulation (arXiv 2603.08797 calls them processes)."""


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """Resources of a shared slice that a replica takes. The models of a slice take turns, one batch at a time.

    Attributes:
        cycle_ms: Upper limit on the cycle, the time for one turn of each model in the slice.
        ms: Time of the replica's own turn.
        cycle: Share of the cycle.
        load: Share of the load that the slice may have.
        memory: Share of the slice's memory.
        least: Lower bound on the share of a slice that the replica costs, by a resource that adds up in a slice.
        rounds: Batches that a request is planned to wait for, including its own.
        steps: Consecutive executions of one batch: the number of tasks of a chain that is called as one.
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
        """Returns the planned latency of a request in a slice with this cycle: each step waits for the other models."""
        return self.rounds * (self.ms + self.steps * (cycle_ms - self.ms))


ALONE = Turn(0.0, 0.0, 0.0, 0.0, 0.0)
"""Turn of a replica that has its slice to itself."""


@dataclass(frozen=True, slots=True, order=True)
class Configuration:
    """A segment on one model of GPU, with the cost and the performance of a replica.

    Attributes:
        graph: Name of the graph.
        task: Name of the task.
        variant: Variant of the task.
        board: Name of the model of GPU.
        slice: Kind of MIG instance.
        instances: Triton instance count.
        batch: Largest batch.
        compute_slices: Compute slices of the slice.
        latency_ms: Planned latency of the task.
        throughput_rps: Usable throughput in calls a second.
        loss: Minus the logarithm of the accuracy relative to the task's best variant; losses add up along a path.
        utilisation: Share of the profiled throughput that is usable at this latency.
        turn: Resources of a shared slice that it takes; `ALONE` if it has a slice to itself.
        replica_range: Range of the task's number of replicas for which the latency holds.
        slice_cost: Cost of a compute slice of the board, in whole units.
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
    replica_range: ReplicaRange = ANY_NUMBER
    slice_cost: int = 1

    @property
    def cost(self) -> int:
        """Cost of its slice in whole units (`planner.domain.costs`)."""
        return self.compute_slices * self.slice_cost

    @property
    def shares(self) -> bool:
        """True if it shares a slice."""
        return self.turn.cycle_ms > 0

    @property
    def replica(self) -> "Replica":
        """Identity of a replica, without its utilisation."""
        return (self.graph, self.task, self.variant, self.board, self.slice, self.instances, self.batch)


Replica = tuple[str, str, str, str, str, int, int]
"""Identity of a replica: graph, task, variant, model of GPU, slice, instances and batch."""

TaskConfigurations = Mapping[str, tuple[Configuration, ...]]
"""Task -> its configurations, sorted."""

Losses = tuple[tuple[str, float], ...]
"""Variant and its loss, for each variant of a task."""


def loss(task: Task, variant: str) -> float:
    """Returns minus the logarithm of a variant's accuracy relative to the task's best variant."""
    return -math.log(task.variant(variant).accuracy / task.best_accuracy)


def accuracy_budget(graph: TaskGraph) -> float:
    """Returns the largest loss along a path that the SLO allows: for each request if a floor, else for the mean."""
    return -math.log(graph.slo.accuracy)


def why_not(row: ProfileRow, lost: float, board: Board, options: Options) -> str | None:
    """Returns why a profiled configuration cannot be used on this board with these options; None if it can.

    Args:
        row: Profile of the configuration.
        lost: Loss of its variant.
        board: Model of GPU.
        options: Options of planning.
    """
    profile = board.profiles.get(row.key.slice)
    if profile is None:
        return f"{board.name} has no slice {row.key.slice}"
    if profile.memory_mib is not None and row.memory_mib > profile.memory_mib:
        return f"{row.memory_mib:.0f} MiB do not fit {row.key.slice} of {board.name} with {profile.memory_mib} MiB"
    if not has(options.features, "M") and profile.compute_slices < board.compute_slices:
        return "without MIG slices (M, a part of S), a replica takes a whole GPU"
    if not has(options.features, "P") and row.key.instances > 1:
        return "without several instances in a slice (P, a part of S), a replica has one instance"
    if "A" not in options.features and lost > 0:
        return "without accuracy scaling (A), a task uses its most accurate variant"
    if options.formulation == "paper" and row.key.instances > PAPER_INSTANCES:
        return f"the paper's formulation allows at most {PAPER_INSTANCES} instances"
    return None


def available(
    graph: TaskGraph,
    table: ProfileTable,
    boards: Sequence[Board],
    options: Options,
    staying: Collection[Replica] = (),
    *,
    others: bool = True,
) -> dict[str, tuple[Configuration, ...]]:
    """Returns, for each task, the profiled configurations that a plan may need on these boards, whatever the SLO.

    Args:
        graph: Graph of the tasks.
        table: Profiles of the graph.
        boards: Models of GPU in the cluster.
        options: Options of planning.
        staying: Replicas to keep even if they are dominated.
        others: True for all other configurations as well, which takes far longer.
    """
    stay: dict[str, set[ProfileKey]] = {name: set() for name in graph.tasks}
    for name, task, variant, board, kind, instances, batch in staying:
        if name == graph.name and task in stay:
            stay[task].add(ProfileKey(board, task, variant, kind, instances, batch))
    losses = {name: tuple((v.name, loss(task, v.name)) for v in task.variants) for name, task in graph.tasks.items()}
    if others:
        rows, quantile, known = request_rows(graph), task_quantile(graph), (tuple(boards), _that_matter(options))
        return {
            name: _every((graph.name, name), losses[name], rows[name], quantile, table, *known, frozenset(stay[name]))
            for name in graph.tasks
        }
    found = {
        name: _usable(filter(None, map(table.get, sorted(keys))), losses[name], boards, options)
        for name, keys in stay.items()
    }
    # One call for all tasks is faster than one for each, since few configurations run.
    used = uses(
        graph, [row for own in found.values() for row in own], table, options, frozenset().union(*stay.values())
    )
    return {name: _configurations(graph.name, own, used, losses[name], boards) for name, own in found.items()}


def _that_matter(options: Options) -> Options:
    """Returns the options on which the configurations depend, with the defaults of all others."""
    return Options(
        features=options.features,
        formulation=options.formulation,
        latency_model=options.latency_model,
        utilisation=options.utilisation,
    )


@remembered()
def _every(
    name: tuple[str, str],
    losses: Losses,
    rows: float,
    quantile: float,
    table: ProfileTable,
    boards: tuple[Board, ...],
    options: Options,
    staying: frozenset[ProfileKey],
) -> tuple[Configuration, ...]:
    """Returns all configurations of a task; remembered, as most tasks of a controller differ little between plans.

    Args:
        name: Names of the graph and of the task.
        losses: Losses of the task's variants.
        rows: Rows of a request.
        quantile: Quantile of the task's latency.
        table: Profiles of the graph.
        boards: Models of GPU in the cluster.
        options: Options of planning.
        staying: Configurations to keep even if they are dominated.
    """
    graph, task = name
    usable = _usable(table.rows(task=task), losses, boards, options)
    used = uses_by_rows(usable, table, options, {task: rows}, quantile, staying)
    return _configurations(graph, usable, used, losses, boards)


def _usable(rows: Iterable[ProfileRow], losses: Losses, boards: Sequence[Board], options: Options) -> list[ProfileRow]:
    """Returns the profiles of a task that can be used on these boards."""
    lost, by_name = dict(losses), {board.name: board for board in boards}
    return [
        row
        for row in rows
        if row.key.gpu in by_name
        and row.key.variant in lost
        and row.throughput_rps > 0
        and why_not(row, lost[row.key.variant], by_name[row.key.gpu], options) is None
    ]


def _configurations(
    graph: str,
    rows: Iterable[ProfileRow],
    used: Mapping[ProfileKey, Sequence[Use]],
    losses: Losses,
    boards: Sequence[Board],
) -> tuple[Configuration, ...]:
    """Returns the configurations of a task, sorted: one for each use of each profile."""
    lost, by_name = dict(losses), {board.name: board for board in boards}

    def configuration(row: ProfileRow, use: Use) -> Configuration:
        key = row.key
        return Configuration(
            graph=graph,
            task=key.task,
            variant=key.variant,
            board=key.gpu,
            slice=key.slice,
            instances=key.instances,
            batch=key.batch,
            compute_slices=by_name[key.gpu].profiles[key.slice].compute_slices,
            latency_ms=use.latency_ms,
            throughput_rps=use.utilisation * row.throughput_rps,
            loss=lost[key.variant],
            utilisation=use.utilisation,
            replica_range=use.replica_range,
            slice_cost=by_name[key.gpu].slice_cost,
        )

    # The rows are first put nearly into the final order, which makes the final sort fast.
    in_order = sorted(rows, key=_replica_order)
    return tuple(sorted(configuration(row, use) for row in in_order for use in sorted(used[row.key], key=_latency)))


def _replica_order(row: ProfileRow) -> tuple[str, str, str, int, int]:
    return (row.key.variant, row.key.gpu, row.key.slice, row.key.instances, row.key.batch)


def _latency(use: Use) -> float:
    return use.latency_ms


def by_load(
    chosen: Iterable[Configuration], everything: Mapping[str, TaskConfigurations]
) -> dict[tuple[Replica, ReplicaRange], list[Configuration]]:
    """Groups the configurations that differ from chosen ones only in utilisation and latency, by rising utilisation."""
    found: dict[tuple[Replica, ReplicaRange], list[Configuration]] = {(c.replica, c.replica_range): [] for c in chosen}
    for tasks in everything.values():
        for configurations in tasks.values():
            for c in configurations:
                if (alike := found.get((c.replica, c.replica_range))) is not None:
                    alike.append(c)
    return {key: sorted(alike, key=_utilisation) for key, alike in found.items()}


def _utilisation(c: Configuration) -> float:
    return c.utilisation


def merged(counts: Mapping[Configuration, int]) -> dict[Configuration, int]:
    """Merges replicas that differ only in utilisation, at their mean utilisation and their longest latency."""
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
