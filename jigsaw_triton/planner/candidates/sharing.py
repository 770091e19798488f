"""Shared slices: models of rarely called tasks take turns in one slice, by Triton's rate limiter.

A task that shares a slice has one replica with one instance, which takes all of its calls. Its performance is planned
from the profiles of each model alone:

- Latency. If a model alone in a slice takes k times its 95th percentile, it takes k times the sum of all models' 95th
  percentiles when it shares one. That sum is the cycle: each time the model runs, it waits for at most one batch of
  each other model. Tasks that a worker executes in one call (`graph.chain`) do not wait for each other, as they form
  one batch.
- Load. The rate limiter does not guarantee that a model waits for at most one cycle. It gives the slice to the model
  that has run least often since it was loaded, so a model that has run often waits while two others alternate. This is
  rare, whatever the order of calls, if the slice is mostly idle. So the utilisation of a shared slice is limited to
  `shared_load`, counting each call as a separate execution that takes its 95th percentile. (In simulations that ran the
  calls of all other models before a model's own, with the worst mixes known, 0.14, 0.4, 0.9 and 1.7% of its calls took
  longer than twice the cycle at loads of 0.1, 0.15, 0.2 and 0.25: about 1.2 times the load cubed.)
- Memory adds up.

Shared slices form pools (`planner.candidates.pools`) by model of GPU, kind of slice and maximum cycle. There are only a
few cycles, so that latency is a constant of a configuration. The proven optimum of the program is an optimum for these
cycles; if there are few models, all cycles that any of them can form are included.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from jigsaw_triton.gpus.model import Board
from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.candidates.configurations import Configuration, TaskConfigurations, Turn
from jigsaw_triton.planner.candidates.filters import even_parts
from jigsaw_triton.planner.domain.paths import longest_through
from jigsaw_triton.planner.domain.problem import SHARED_LOAD, Options
from jigsaw_triton.planner.domain.rates import most_calls, request_rows
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR, TOLERANCE
from jigsaw_triton.planner.latency.latency import task_quantile, two_p95_ms
from jigsaw_triton.profiles.service import busy
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from jigsaw_triton.runtime.chains import members

MOST_CYCLES = 24
"""Largest number of cycles of a kind of slice for which all sums of turns are used. A convention that limits planning
time."""

LADDER = 6
"""Number of cycles used otherwise, in a geometric series, and as many again that split a graph's latency evenly. A
convention."""

LATE_FACTOR = 1.2
"""Share of calls that take longer than twice the cycle, divided by the cube of the load. From the simulations above."""


def shared_load(workloads: Collection[Workload], options: Options) -> float:
    """Returns the largest load of a shared slice, with each call counted at its 95th percentile.

    With the latency model `queue`, it is the load at which the share of late calls in the worst order equals what the
    quantile of each task allows. It is the same for all slices, that of the strictest graph.
    """
    if options.latency_model == "2p95":
        return min(SHARED_LOAD, options.usable)
    late = min(1 - task_quantile(w.graph) for w in workloads)
    return min(SHARED_LOAD, float((late / LATE_FACTOR) ** (1 / 3)))


def with_shared(
    workloads: Sequence[Workload],
    alone: Mapping[str, TaskConfigurations],
    profiles: Mapping[str, ProfileTable],
    boards: Collection[Board],
    options: Options,
) -> dict[str, TaskConfigurations]:
    """Returns the configurations together with those that share a slice.

    Args:
        workloads: Graphs and demands.
        alone: Graph name -> task -> configurations with a slice to themselves.
        profiles: Graph name -> profiles.
        boards: Models of GPU in the cluster.
        options: Options of planning.
    """
    most_load = shared_load(workloads, options)
    rooms = {(b.name, kind): p.memory_mib for b in boards for kind, p in b.profiles.items()}
    found: list[_Sharer] = []
    for workload in workloads:
        name = workload.graph.name
        found += _sharers(workload, alone[name], profiles[name], rooms, most_load, options)
    made: list[Configuration] = []
    by_slice: dict[tuple[str, str], list[_Sharer]] = {}
    for sharer in found:
        by_slice.setdefault((sharer.configuration.board, sharer.configuration.slice), []).append(sharer)
    for sharers in by_slice.values():
        for cycle_ms in _cycles(sharers):
            made += _priced(
                _undominated([s.at(cycle_ms) for s in sharers if s.row.latency_p95_ms <= cycle_ms <= s.most_ms])
            )
    return {
        graph: {
            task: (*own, *sorted(c for c in made if (c.graph, c.task) == (graph, task))) for task, own in tasks.items()
        }
        for graph, tasks in alone.items()
    }


@dataclass(frozen=True, slots=True)
class _Sharer:
    """A configuration that may share a slice.

    Attributes:
        configuration: The configuration, without its turn.
        row: Profile of the configuration.
        rounds: Batches that a request waits for, including its own.
        steps: Number of executions of a batch.
        most_ms: Longest cycle that the graph's SLO allows.
        even_ms: Cycle with which it keeps its even part of the latency.
        rate_rps: Calls of the task a second.
        load: Load of the slice, relative to the largest allowed.
        memory: Share of the slice's memory.
    """

    configuration: Configuration
    row: ProfileRow
    rounds: float
    steps: int
    most_ms: float
    even_ms: float
    rate_rps: float
    load: float
    memory: float

    def at(self, cycle_ms: float) -> Configuration:
        """Returns the configuration in a slice with this cycle."""
        own_ms = self.row.latency_p95_ms
        part = own_ms / cycle_ms
        turn = Turn(cycle_ms, own_ms, part, self.load, self.memory, rounds=self.rounds, steps=self.steps)
        return replace(
            self.configuration, latency_ms=turn.latency_ms(cycle_ms), throughput_rps=self.rate_rps, turn=turn
        )


def _sharers(
    workload: Workload,
    alone: TaskConfigurations,
    table: ProfileTable,
    rooms: Mapping[tuple[str, str], int | None],
    most_load: float,
    options: Options,
) -> Iterator[_Sharer]:
    graph = workload.graph
    calls = most_calls(graph, {task: {c.variant for c in found} for task, found in alone.items()})
    rows, even = request_rows(graph), even_parts(graph)
    left_ms = _left(graph, {t: min((c.latency_ms for c in found), default=math.inf) for t, found in alone.items()})
    for task, found in alone.items():
        limit_ms = left_ms[task] if "T" in options.features else even[task] * graph.tasks_ms
        rate = workload.demand_rps * calls[task] or 1.0
        kinds = {(c.variant, c.board, c.slice): c for c in found}
        for (variant, board, kind), like in sorted(kinds.items()):
            for row in table.rows(task=task, variant=variant, gpu=board):
                if (row.key.slice, row.key.instances) != (kind, 1) or row.throughput_rps <= 0:
                    continue
                room = rooms[board, kind]
                memory = row.memory_mib / room if room else 0.0
                load = busy(rate, row) / most_load
                rounds = two_p95_ms(row, rows[task]) / row.latency_p95_ms
                steps = len(members(task))
                if load <= 1 and memory <= 1:
                    yield _Sharer(
                        configuration=replace(like, instances=1, batch=row.key.batch, utilisation=1.0),
                        row=row,
                        rounds=rounds,
                        steps=steps,
                        most_ms=_cycle_ms(limit_ms * (1 + TOLERANCE / 10) / rounds, row.latency_p95_ms, steps),
                        even_ms=_cycle_ms(even[task] * graph.tasks_ms / rounds, row.latency_p95_ms, steps),
                        rate_rps=rate,
                        load=load,
                        memory=memory,
                    )


def _cycle_ms(most_ms: float, own_ms: float, steps: int) -> float:
    """Returns the longest cycle in which a batch of `steps` executions, `own_ms` alone, takes at most `most_ms`."""
    return own_ms + (most_ms - own_ms) / steps


def _left(graph: TaskGraph, fastest: Mapping[str, float]) -> dict[str, float]:
    """Returns, for each task, the latency that the fastest configurations of the other tasks leave it."""
    through = longest_through(graph, fastest)
    return {task: graph.tasks_ms - through[task] + fastest[task] for task in fastest}


def _cycles(sharers: Sequence[_Sharer]) -> list[float]:
    """Returns the cycles to plan with for one kind of slice: all sums of its models' turns, or a few of many."""
    longest = max(s.most_ms for s in sharers)
    own: dict[tuple[str, str], set[float]] = {}
    for s in sharers:
        own.setdefault((s.configuration.graph, s.configuration.task), set()).add(s.row.latency_p95_ms)
    sums = {0.0}
    for turns in own.values():
        sums |= {round(a + b, 6) for a in sums for b in turns if a + b <= longest}
        if len(sums) > MOST_CYCLES:
            break
    else:
        return sorted(sums - {0.0})
    least = min(min(turns) for turns in own.values())
    even = sorted({round(s.even_ms, 3) for s in sharers if least < s.even_ms <= longest})
    even = [even[i * len(even) // LADDER] for i in range(LADDER)] if len(even) > LADDER else even
    ladder = [2 * least * (longest / (2 * least)) ** (i / (LADDER - 1)) for i in range(LADDER)]
    return sorted({*even, *ladder}) if longest > 2 * least else []


def _undominated(found: Sequence[Configuration]) -> list[Configuration]:
    """Drops configurations if another of the same variant and pool is as fast and takes no more of any resource."""
    kept: list[Configuration] = []

    def needs(c: Configuration) -> tuple[float, ...]:
        return c.latency_ms, c.turn.cycle, c.turn.load, c.turn.memory

    for c in sorted(found, key=lambda c: (*needs(c), c)):
        same = (k for k in kept if (k.graph, k.task, k.variant) == (c.graph, c.task, c.variant))
        if not any(all(a <= b for a, b in zip(needs(k), needs(c), strict=True)) for k in same):
            kept.append(c)
    return kept


def _priced(pool: Sequence[Configuration]) -> list[Configuration]:
    """Sets `Turn.least` to each configuration's share of the pool's scarcest resource: cycle, load or memory.

    The resource must be the same for the whole pool, because models that need much of different resources may share a
    slice.
    """
    parts = [(c.turn.cycle, c.turn.load, c.turn.memory) for c in pool]
    scarce = max(range(3), key=lambda d: sum(p[d] for p in parts))
    return [replace(c, turn=replace(c.turn, least=p[scarce])) for c, p in zip(pool, parts, strict=True)]


def evenly_shared(graph: TaskGraph, found: TaskConfigurations) -> dict[str, tuple[Configuration, ...]]:
    """Returns the configurations of a graph with which plans of few slices are found quickly.

    They share slices of the longest cycle with which their task keeps its even part of the latency. A task without such
    configurations keeps all.
    """
    even = even_parts(graph)
    kept: dict[str, tuple[Configuration, ...]] = {}
    for task, every in found.items():
        longest: dict[tuple[str, str, str], float] = {}
        fitting = [c for c in every if c.shares and c.latency_ms <= even[task] * graph.tasks_ms * (1 + FLOAT_ERROR)]
        for c in fitting:
            kind = (c.variant, c.board, c.slice)
            longest[kind] = max(longest.get(kind, 0.0), c.turn.cycle_ms)
        kept[task] = tuple(c for c in fitting if c.turn.cycle_ms == longest[c.variant, c.board, c.slice]) or every
    return kept
