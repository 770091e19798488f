"""Models of rarely called tasks in one slice, taking turns: one execution at a time, by Triton's rate limiter.

A task that shares does so with one replica of one instance, which does all of it. What is planned for it follows from
profiles of each model alone:

- Where a model alone in a slice takes a number of times its 95th percentile, it takes as many times the sum of all
  models' 95th percentiles, their cycle: each time that it runs, it waits for a batch of each other model at most.
  Tasks that a worker does in one call (`graph.chain`) do not wait for each other, as there is one batch of theirs.
- That it waits for no more than that does not follow from the limiter. It gives the slice to the model that has run
  least often since it was loaded, so one that has run often waits for as long as two others have work by turns. What
  makes it rare in any order is a slice that is mostly idle: each call counted as an execution of its own that takes its
  95th percentile, the slice is busy for no more than `shared_load`. (Simulated with the calls of all other models
  before a model's own, in the worst mixes known to us 0.14, 0.4, 0.9 and 1.7% of its calls took longer than twice the
  cycle at a load of 0.1, 0.15, 0.2 and 0.25: about 1.2 times the load cubed.)
- Memory adds up.

Slices that are shared are pooled by model of GPU, kind, and the cycle that they may have: one of a few, so that latency
stays a constant of a configuration. A pool has so many slices that cycle, load and memory of what is in it fit them
taken together, and by dual feasible functions (Fekete and Schepers 2001, "New classes of fast lower bounds for bin
packing problems") also in part one by one. Where a solution turns out not to fit one by one, a cut says so, and the
program is solved again. So what is proven optimal is that for these cycles; where there are few models, every cycle
that some of them come to is among them.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from jigsaw_triton.gpus.model import Board
from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.candidates.chains import Link, called_with_ms, together
from jigsaw_triton.planner.candidates.configurations import (
    TOLERANCE,
    Configuration,
    TaskConfigurations,
    Turn,
    even_parts,
)
from jigsaw_triton.planner.domain.paths import longest_through
from jigsaw_triton.planner.domain.problem import SHARED_LOAD, Options
from jigsaw_triton.planner.domain.rates import most_calls, request_rows
from jigsaw_triton.planner.latency.latency import task_quantile, two_p95_ms
from jigsaw_triton.profiles.service import busy
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from jigsaw_triton.runtime.chains import members

MOST_CYCLES = 24
"""Where models in a slice come to more different sums than this, fewer are chosen among."""

LADDER = 6
"""So many are, from the least to the greatest, beside those that split a graph's latency evenly."""

EFFORT = 20_000
"""Places that are tried at most to tell whether models fit so many slices."""

_SIZES = range(1, 7)
_ROUNDING = 1e-9

Part = tuple[float, float, float]
"""Of a slice: of its cycle, its load, its memory."""


@dataclass(frozen=True, slots=True, order=True)
class Pool:
    """Slices that are shared: model of GPU, kind, and the most that a turn of each model may take together."""

    board: str
    slice: str
    cycle_ms: float


@dataclass(frozen=True, slots=True)
class SharedSlice:
    """One that is shared, and the configurations that share it, sorted."""

    board: str
    slice: str
    compute_slices: int
    configurations: tuple[Configuration, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """That these configurations together take so many slices of their pool at least."""

    pool: Pool
    configurations: frozenset[Configuration]
    slices: int


def shared_load(workloads: Collection[Workload], options: Options) -> float:
    """The largest load of a slice that is shared, each call counted at its 95th percentile.

    With the latency model `queue` it is that at which no more calls are late in the worst order than the quantile that
    each task is planned at allows; the same for all slices, by the strictest graph.
    """
    if options.latency_model == "2p95":
        return min(SHARED_LOAD, options.usable)
    late = min(1 - task_quantile(w.graph) for w in workloads)
    return min(SHARED_LOAD, float((late / 1.2) ** (1 / 3)))


def with_shared(
    workloads: Sequence[Workload],
    alone: Mapping[str, TaskConfigurations],
    profiles: Mapping[str, ProfileTable],
    boards: Collection[Board],
    options: Options,
) -> dict[str, TaskConfigurations]:
    """The configurations, and beside them those that share a slice.

    Args:
        workloads: Graphs and demands.
        alone: Graph name -> task -> configurations with a slice of their own.
        profiles: By graph.
        boards: Of the cluster.
        options: How to plan.
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
        by_slice.setdefault((sharer.of.board, sharer.of.slice), []).append(sharer)
    for alike in by_slice.values():
        for cycle_ms in _cycles(alike):
            made += _priced(
                _undominated([s.at(cycle_ms) for s in alike if s.row.latency_p95_ms <= cycle_ms <= s.most_ms])
            )
    return {
        graph: {
            task: (*of, *sorted(c for c in made if (c.graph, c.task) == (graph, task))) for task, of in tasks.items()
        }
        for graph, tasks in alone.items()
    }


@dataclass(frozen=True, slots=True)
class _Sharer:
    """What may share a slice.

    Attributes:
        of: The configuration.
        row: Its profile.
        rounds: Batches that a request waits for, its own among them.
        steps: Executions that a batch takes.
        most_ms: The longest cycle that its graph leaves time for.
        even_ms: The cycle with which it keeps its even part of the latency.
        rate_rps: All of the task's calls.
        load: Of a slice, relative to the most that it may have.
        memory: Of the slice's.
    """

    of: Configuration
    row: ProfileRow
    rounds: float
    steps: int
    most_ms: float
    even_ms: float
    rate_rps: float
    load: float
    memory: float

    def at(self, cycle_ms: float) -> Configuration:
        """It in a slice with this cycle."""
        own_ms = self.row.latency_p95_ms
        part = own_ms / cycle_ms
        turn = Turn(cycle_ms, own_ms, part, self.load, self.memory, rounds=self.rounds, steps=self.steps)
        return replace(self.of, latency_ms=turn.latency_ms(cycle_ms), throughput_rps=self.rate_rps, turn=turn)


def _sharers(
    workload: Workload,
    alone: TaskConfigurations,
    table: ProfileTable,
    rooms: Mapping[tuple[str, str], int | None],
    most_load: float,
    options: Options,
) -> Iterator[_Sharer]:
    graph = workload.graph
    calls = most_calls(graph, {task: {c.variant for c in of} for task, of in alone.items()})
    rows, even = request_rows(graph), even_parts(graph)
    left_ms = _left(graph, {t: min((c.latency_ms for c in of), default=math.inf) for t, of in alone.items()})
    for task, of in alone.items():
        limit_ms = left_ms[task] if "T" in options.features else even[task] * graph.tasks_ms
        rate = workload.demand_rps * calls[task] or 1.0
        kinds = {(c.variant, c.board, c.slice): c for c in of}
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
                        of=replace(like, instances=1, batch=row.key.batch, utilisation=1.0),
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
    """The longest cycle in which a batch of so many steps, alone `own_ms` long, takes no longer than `most_ms`."""
    return own_ms + (most_ms - own_ms) / steps


def _left(graph: TaskGraph, fastest: Mapping[str, float]) -> dict[str, float]:
    """Task -> the latency that the fastest of the other tasks leave it."""
    through = longest_through(graph, fastest)
    return {task: graph.tasks_ms - through[task] + fastest[task] for task in fastest}


def _cycles(alike: Sequence[_Sharer]) -> list[float]:
    """The cycles that are planned with, for one kind of slice: all that some of its models come to, or a few."""
    longest = max(s.most_ms for s in alike)
    own: dict[tuple[str, str], set[float]] = {}
    for s in alike:
        own.setdefault((s.of.graph, s.of.task), set()).add(s.row.latency_p95_ms)
    sums = {0.0}
    for turns in own.values():
        sums |= {round(a + b, 6) for a in sums for b in turns if a + b <= longest}
        if len(sums) > MOST_CYCLES:
            break
    else:
        return sorted(sums - {0.0})
    least = min(min(turns) for turns in own.values())
    even = sorted({round(s.even_ms, 3) for s in alike if least < s.even_ms <= longest})
    even = [even[i * len(even) // LADDER] for i in range(LADDER)] if len(even) > LADDER else even
    ladder = [2 * least * (longest / (2 * least)) ** (i / (LADDER - 1)) for i in range(LADDER)]
    return sorted({*even, *ladder}) if longest > 2 * least else []


def _undominated(found: Sequence[Configuration]) -> list[Configuration]:
    """Leaves out what another of the same variant in the same pool does as fast, and takes no more of anything."""
    kept: list[Configuration] = []

    def needs(c: Configuration) -> tuple[float, ...]:
        return c.latency_ms, c.turn.cycle, c.turn.load, c.turn.memory

    for c in sorted(found, key=lambda c: (*needs(c), c)):
        same = (k for k in kept if (k.graph, k.task, k.variant) == (c.graph, c.task, c.variant))
        if not any(all(a <= b for a, b in zip(needs(k), needs(c), strict=True)) for k in same):
            kept.append(c)
    return kept


def _priced(pool: Sequence[Configuration]) -> list[Configuration]:
    """With the part of a slice that each costs at least: of cycle, load or memory what the pool's models have least of.

    It has to be the same for all of a pool, since what is short of one thing may go with what is short of another.
    """
    parts = [(c.turn.cycle, c.turn.load, c.turn.memory) for c in pool]
    scarce = max(range(3), key=lambda d: sum(p[d] for p in parts))
    return [replace(c, turn=replace(c.turn, least=p[scarce])) for c, p in zip(pool, parts, strict=True)]


def evenly_shared(graph: TaskGraph, found: TaskConfigurations) -> dict[str, tuple[Configuration, ...]]:
    """Of a graph's configurations those with which plans of few slices are soon found; all of a task without such.

    They share slices of the longest cycle with which their task keeps its even part of the latency.
    """
    even = even_parts(graph)
    kept: dict[str, tuple[Configuration, ...]] = {}
    for task, of in found.items():
        longest: dict[tuple[str, str, str], float] = {}
        fitting = [c for c in of if c.shares and c.latency_ms <= even[task] * graph.tasks_ms * (1 + _ROUNDING)]
        for c in fitting:
            kind = (c.variant, c.board, c.slice)
            longest[kind] = max(longest.get(kind, 0.0), c.turn.cycle_ms)
        kept[task] = tuple(c for c in fitting if c.turn.cycle_ms == longest[c.variant, c.board, c.slice]) or of
    return kept


def weights(c: Configuration) -> tuple[float, ...]:
    """Measures of a configuration of which each comes to at most 1 for all in a slice together."""
    return tuple(_weight(part, k) for part in (c.turn.cycle, c.turn.load, c.turn.memory) for k in (0, *_SIZES))


def _weight(part: float, k: int) -> float:
    """A dual feasible function: for k = 0 the part itself, else steps at multiples of 1 / (k + 1)."""
    if k == 0:
        return part
    times = (k + 1) * part
    if abs(times - round(times)) < 1e-6:
        return part
    return math.floor(times) / k


def pool_of(c: Configuration) -> Pool:
    """Of a configuration that shares."""
    return Pool(c.board, c.slice, c.turn.cycle_ms)


@dataclass(frozen=True, slots=True)
class Fitting:
    """Which configurations share which slice.

    Attributes:
        slices: That they fit.
        needed: Pool -> slices, where they are more than there are.
        cuts: What is proven of those pools.
    """

    slices: tuple[SharedSlice, ...]
    needed: Mapping[Pool, int]
    cuts: tuple[Cut, ...]


def fitting(
    counts: Iterable[Configuration],
    pools: Mapping[Pool, int],
    links: Collection[Link] = (),
    apart: Callable[[Configuration], Sequence[Configuration]] = lambda c: (c,),
) -> Fitting:
    """Puts configurations into slices.

    Args:
        counts: Configurations, each of one replica; those that do not share are left out.
        pools: Pool -> slices that there are.
        links: Tasks that are called at once where they are in one slice.
        apart: The configurations of a chain's tasks by that of the chain; others as they are.
    """
    within: dict[Pool, list[Configuration]] = {}
    for c in sorted(counts):
        if c.shares:
            within.setdefault(pool_of(c), []).append(c)
    made: list[SharedSlice] = []
    needed: dict[Pool, int] = {}
    cuts: list[Cut] = []
    for pool, found in sorted(within.items()):
        parts = [(c.turn.cycle, c.turn.load, c.turn.memory) for c in found]
        number = proven = pools[pool]
        while not (bins := packed(parts, number)):
            if bins is not None and proven == number:
                proven += 1
            number += 1
        bins = together(found, bins, links, packed)
        made += [_slice(pool, [part for i in inside for part in apart(found[i])], links) for inside in bins]
        if number > pools[pool]:
            needed[pool] = number
        if proven > pools[pool]:
            cuts.append(Cut(pool, frozenset(found), proven))
    return Fitting(tuple(made), needed, tuple(cuts))


def _slice(pool: Pool, inside: Sequence[Configuration], links: Collection[Link]) -> SharedSlice:
    """A slice, its configurations with the latency that its own cycle makes, and all that they can carry at once.

    What is called at once with others does not wait for these: there is one batch of theirs.
    """
    cycle_ms = sum(c.turn.ms for c in inside)
    load = sum(c.turn.load for c in inside)
    others_ms = called_with_ms(inside, links)
    settled = (
        replace(
            c,
            latency_ms=c.turn.latency_ms(cycle_ms - with_it_ms),
            throughput_rps=c.throughput_rps / max(load, _ROUNDING),
            turn=replace(c.turn, cycle_ms=cycle_ms),
        )
        for c, with_it_ms in zip(inside, others_ms, strict=True)
    )
    return SharedSlice(pool.board, pool.slice, inside[0].compute_slices, tuple(sorted(settled)))


def packed(parts: Sequence[Part], slices: int, effort: int = EFFORT) -> list[list[int]] | None:
    """The parts in so many slices, by number; none where they do not fit; None where that takes too long to tell.

    Slice by slice: the largest part that is left, with all that it can have beside it until no other part fits.

    Args:
        parts: None greater than a slice.
        slices: That there are.
        effort: Sets of parts that are looked at.
    """
    search = _Packing(parts, effort)
    largest_first = sorted(range(len(parts)), key=lambda i: (-max(parts[i]), [-p for p in parts[i]], i))
    try:
        return search.filled(largest_first, slices) or []
    except _TooLong:
        return None


class _TooLong(Exception):
    """A search took more effort than it is worth."""


@dataclass(slots=True)
class _Packing:
    """A search for slices that hold parts.

    Attributes:
        parts: By number.
        effort: That is left.
    """

    parts: Sequence[Part]
    effort: int

    def filled(self, left: Sequence[int], slices: int) -> list[list[int]] | None:
        """The parts that are left in so many slices; None where they do not fit."""
        if not left:
            return []
        if any(sum(self.parts[i][d] for i in left) > slices * (1 + _ROUNDING) for d in range(3)):
            return None
        for inside in self._beside([left[0]], self.parts[left[0]], left[1:]):
            rest = [i for i in left if i not in inside]
            if (others := self.filled(rest, slices - 1)) is not None:
                return [inside, *others]
        return None

    def _beside(self, inside: list[int], used: Part, left: Sequence[int]) -> Iterator[list[int]]:
        """Sets of parts that fit together and leave no room for another one of those that come after."""
        self.effort -= 1
        if self.effort < 0:
            raise _TooLong
        full, seen = True, set[Part]()
        for at, i in enumerate(left):
            part = self.parts[i]
            more = (used[0] + part[0], used[1] + part[1], used[2] + part[2])
            if max(more) <= 1 + _ROUNDING and part not in seen:
                full = False
                seen.add(part)
                yield from self._beside([*inside, i], more, left[at + 1 :])
        if full:
            yield inside
