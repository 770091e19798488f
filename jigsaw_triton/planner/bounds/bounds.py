"""The least slices of any plan that uses a configuration, so that what no optimum can use is told without solving.

Dynamic programming over a relaxation of one graph's part of the program (`planner.formulation.model`):

- Latency and loss of accuracy are rounded down to bins, of which the SLO has a fixed number.
- Where paths join, each task follows one parent, so that the graph is a forest. Of what is left out of a path the least
  latency that it takes is counted.
- A task is called as rarely as the variants allow that its source may use by the source's own loss of accuracy.
- Slices are where they are wanted: no GPU has to be cut for them.
- What shares a slice takes a part of it, and the others can be had for the rest.

Given what it may use by its share of latency and loss, a task takes the slices that cover its rate
(`planner.bounds.cover`). Each step only lowers the count, so it is a bound; how near it comes to the optimum is a
matter of measurement (`benchmarks.planner`).
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.bounds.bins import LEAST_LOSS, ROUNDING, rounded_down, telling_apart
from jigsaw_triton.planner.bounds.cover import Cover, FloorCover, MeanCover
from jigsaw_triton.planner.candidates.configurations import (
    Configuration,
    TaskConfigurations,
    accuracy_budget,
)
from jigsaw_triton.planner.domain.paths import longest_after, longest_through
from jigsaw_triton.planner.domain.rates import calls
from jigsaw_triton.planner.domain.tolerances import TOLERANCE

LEAST_LATENCY_BINS = 400
LATENCY_BINS_A_TASK = 100
"""Rounding adds up along a path."""

MOST_CELLS = 3_000_000
FEWEST_LATENCY_BINS = 100
"""Of all tables together; large graphs get coarser bins, down to so many."""

MOST_CALLS = 8
"""Different numbers of calls that a task is looked at with; what lies between counts as the next lower one."""

MEAN_LOSS_BINS = 24
"""Where the mean accuracy counts; a task is counted as if it lost up to a bin more than it is charged for."""

_PARTS = 1e-3
"""What sums of parts of slices may be off by, in single precision: so much, or its square of what they come to."""

_WIDER = 0.02
"""By how much more, relative, is looked at where no configuration of a task is within a number of slices."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one graph.

    Attributes:
        least: Compute slices of any plan for it; infinite where there is none.
        witness: Task -> latency and loss of accuracy that it may have for few slices to do, by the bound; within the
            SLO where such were found.
        witnessed: Compute slices that do then; mostly the least.
    """

    least: float
    witness: Mapping[str, tuple[float, float]]
    witnessed: float
    _tasks: "Sequence[_Task]" = field(repr=False)
    _using: "dict[float, Mapping[Configuration, float]]" = field(default_factory=dict, repr=False)

    def using(self, most: float) -> Mapping[Configuration, float]:
        """Configuration -> compute slices of any plan for the graph that has a replica of this one.

        Args:
            most: More slices than this are told to be infinitely many: the fewer that matter, the sooner it is known.
        """
        known = max(self._using, default=-math.inf)
        if most > known:
            self._using.clear()
            self._using[most] = _using(self._tasks, most)
            known = most
        return self._using[known]

    def within(self, most: float, found: TaskConfigurations) -> dict[str, tuple[Configuration, ...]]:
        """Task -> the configurations that plans of up to so many slices may use; always one."""
        limit = most + _PARTS * max(1.0, _PARTS * most)
        using = self.using(limit)
        kept = {task: tuple(c for c in of if using[c] <= limit) for task, of in found.items()}
        if all(kept.values()):
            return kept
        wider = self.within(max(self.least, most + max(1.0, _WIDER * most)), found)
        return {task: of or wider[task] for task, of in kept.items()}

    def likely(self, more: float, found: TaskConfigurations) -> dict[str, tuple[Configuration, ...]]:
        """Task -> the configurations of the witness, among which a plan of few slices is to be looked for.

        Args:
            more: Relative: those whose bound is above the least by more are left out, unless the witness may need them.
            found: To choose from.
        """
        within = self.within(max((1 + more) * self.least, self.witnessed), found)
        witnessed = {
            task: tuple(c for c in of if c.latency_ms <= self.witness[task][0] and c.loss <= self.witness[task][1])
            for task, of in within.items()
        }
        return {task: of or within[task] for task, of in witnessed.items()}


def least_slices(workload: Workload, found: TaskConfigurations) -> Bounds:
    """Bounds from below on the compute slices of plans for one graph.

    Args:
        workload: The graph and its demand.
        found: Its configurations, at least one a task.
    """
    tasks = _forest(workload, found)
    for task in reversed(tasks):
        task.look_below()
    least = sum(task.least() for task in tasks if task.parent is None)
    witness, witnessed = _witness(workload.graph, tasks) if least < math.inf else ({}, least)
    return Bounds(least, witness, witnessed, tasks)


def _using(tasks: "Sequence[_Task]", most: float) -> dict[Configuration, float]:
    trees = {task.name: task.least() for task in tasks if task.parent is None}
    for task in tasks:
        task.around.clear()
    using: dict[Configuration, float] = {}
    for task in tasks:
        if task.parent is None:
            task.begin(sum(least for name, least in trees.items() if name != task.name))
        using |= task.look_around(most)
    return using


def _witness(graph: TaskGraph, tasks: "Sequence[_Task]") -> tuple[dict[str, tuple[float, float]], float]:
    """See `Bounds`. Where bins, rounded down, are beyond the SLO together, fewer are used until they are not."""
    deep = math.ceil(max(longest_after(graph, dict.fromkeys(graph.tasks, 1.0)).values())) + 1
    latency_bins, loss_bins = (end - 1 for end in tasks[0].shape)
    roots = [task for task in tasks if task.parent is None]
    first: tuple[dict[str, tuple[float, float]], float] | None = None
    for fewer_loss, fewer_latency in product(range(min(deep, loss_bins) + 1), range(min(deep, latency_bins) + 1)):
        left = (latency_bins - fewer_latency, loss_bins - fewer_loss)
        slices = sum(float(root.below[0][left]) for root in roots)
        if slices == math.inf:
            continue
        levels: dict[str, tuple[float, float]] = {}
        for root in roots:
            root.descend(0, left, levels)
        first = first or (levels, slices)
        ms, loss = ({name: at[i] for name, at in levels.items()} for i in (0, 1))
        accurate = graph.slo.accuracy_mode == "mean" or _longest(graph, loss) <= accuracy_budget(graph) + LEAST_LOSS
        if accurate and _longest(graph, ms) <= graph.tasks_ms:
            return levels, slices
    assert first is not None, "the least is finite"
    return first


def _longest(graph: TaskGraph, weight: Mapping[str, float]) -> float:
    return max(longest_through(graph, weight).values())


@dataclass(slots=True, eq=False)
class _Task:
    """A task in the forest. Tables of slices are by bins of latency and of loss that are left, or that are spent.

    Attributes:
        name: Of the task.
        demand_rps: Of the graph.
        cover: Its slices.
        latency: Level -> bins.
        loss: Likewise.
        tail: Bins of latency that the rest of its longest path takes at least.
        shape: Of tables.
        calls: Numbers of calls a request that it is looked at with, ascending.
        parent: The task that it follows.
        weights: Level of the parent -> calls for one of the parent's; None where its calls do not depend on those.
        children: The tasks that follow it.
        below: Number of calls -> by what is left for it and its children: the slices that they take together.
        around: Number of calls -> by what is spent before it: the slices that all the others take.
        choices: Number of calls -> what `_choices` has told.
    """

    name: str
    demand_rps: float
    cover: Cover
    latency: NDArray[np.int64]
    loss: NDArray[np.int64]
    tail: int
    shape: tuple[int, int]
    calls: tuple[float, ...]
    parent: "_Task | None"
    weights: tuple[float, ...] | None
    children: "list[_Task]" = field(default_factory=list)
    below: list[Array] = field(default_factory=list)
    around: dict[int, Array] = field(default_factory=dict)
    choices: "dict[int, list[_Choice]]" = field(default_factory=dict)

    def least(self) -> float:
        """Slices of the tree below a root."""
        return float(self.below[0][-1, -1])

    def begin(self, elsewhere: float) -> None:
        """Makes a root know what the other trees take."""
        self._around(0)[0, 0] = elsewhere

    def look_below(self) -> None:
        """Fills `below`, once the children have done so."""
        for number in range(len(self.calls)):
            table = np.full(self.shape, np.inf, np.float32)
            slices = self._slices(number)
            for choice in self._choices(number):
                children = self._children(choice.picks)
                for i in choice.told:
                    spent, end = self._spent(i)
                    if end[0] > self.tail:
                        part = table[spent[0] + self.tail :, spent[1] :]
                        np.minimum(part, children[self.tail : end[0], : end[1]] + slices[i], out=part)
            self.below.append(table)

    def look_around(self, most: float) -> dict[Configuration, float]:
        """The bound with each configuration, as far as it is no more than that; tells the children what is around."""
        using = np.full(len(self.cover.configurations), math.inf)
        for number, around in self.around.items():
            slices = self._slices(number)
            others = np.full(len(slices), np.inf)
            for choice in self._choices(number):
                self._look_at(choice, around, slices, most, others)
            levels = np.flatnonzero(others + slices <= most)
            which, at = np.nonzero(self.cover.allowing(levels))
            with_it = self.cover.slices_with(which, self.calls[number] * self.demand_rps, levels[at])
            together = others[levels[at]] + np.maximum(slices[levels[at]], with_it)
            np.minimum.at(using, which, together)
        using[using > most] = math.inf
        return dict(zip(self.cover.configurations, using.tolist(), strict=True))

    def _look_at(self, choice: "_Choice", around: Array, slices: Array, most: float, others: NDArray[Any]) -> None:
        """Notes by level what all others take, and tells the children; not where that is more than `most` together."""
        left = self._children(choice.picks)[::-1, ::-1]
        fewest, told = float(slices[choice.levels].min()), set(choice.told)
        known: dict[tuple[int, int], float] = {}
        # Latency -> loss from which on the others take too many: the more is spent, the more they do.
        closed = np.full(self.shape[0] + 1, np.inf)
        for i in sorted(choice.levels, key=lambda i: (self.latency[i], self.loss[i])):
            spent, end = self._spent(i)
            if end[0] <= self.tail or not end[1] or spent[1] >= closed[spent[0]]:
                continue
            before = around[: end[0] - self.tail, : end[1]]
            after = (slice(spent[0], self.shape[0] - self.tail), slice(spent[1], None))
            if spent not in known:
                known[spent] = float((before + left[after]).min())
            others[i] = known[spent]
            if others[i] + fewest > most:
                np.minimum(closed[spent[0] :], spent[1], out=closed[spent[0] :])
            if i in told and others[i] + slices[i] <= most:
                self._tell(choice.picks, before + slices[i], after)

    def descend(self, number: int, left: tuple[int, int], witness: dict[str, tuple[float, float]]) -> None:
        """Notes the level of least slices within what is left, of this task and of those below."""
        slices = self._slices(number)
        best, level, picks = math.inf, 0, (0,) * len(self.children)
        for choice in self._choices(number):
            children = self._children(choice.picks)
            levels = np.array(choice.told)
            latency, loss = left[0] - self.latency[levels], left[1] - self.loss[levels]
            levels = levels[within := (latency >= self.tail) & (loss >= 0)]
            together = children[latency[within], loss[within]] + slices[levels]
            if len(levels) and together.min() < best:
                at = int(together.argmin())
                best, level, picks = float(together[at]), int(levels[at]), choice.picks
        witness[self.name] = (float(self.cover.latency_ms[level]), float(self.cover.most_loss[level]))
        after = (left[0] - int(self.latency[level]), left[1] - int(self.loss[level]))
        for child, pick in zip(self.children, picks, strict=True):
            child.descend(pick, after, witness)

    def _slices(self, number: int) -> Array:
        return self.cover.slices(self.calls[number] * self.demand_rps).astype(np.float32)

    def _tell(self, picks: tuple[int, ...], before: Array, after: tuple[slice, slice]) -> None:
        for child, pick in zip(self.children, picks, strict=True):
            siblings = self._children(picks, but=child)[::-1, ::-1]
            part = child._around(pick)[after]
            np.minimum(part, before + siblings[after], out=part)

    def _around(self, number: int) -> Array:
        if number not in self.around:
            self.around[number] = np.full(self.shape, np.inf, np.float32)
        return self.around[number]

    def _children(self, picks: tuple[int, ...], but: "_Task | None" = None) -> Array:
        table = np.zeros(self.shape, np.float32)
        for child, pick in zip(self.children, picks, strict=True):
            if child is not but:
                table = table + child.below[pick]
        return table

    def _spent(self, level: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """What a level spends, and the end of what may have been spent before it, without the tail."""
        latency, loss = int(self.latency[level]), int(self.loss[level])
        return (latency, loss), (max(self.shape[0] - latency, 0), max(self.shape[1] - loss, 0))

    def _choices(self, number: int) -> "list[_Choice]":
        """Levels by how often the children are called then."""
        if number not in self.choices:
            slices, groups = self._slices(number), dict[tuple[int, ...], list[int]]()
            for level in range(len(self.loss)):
                picks = tuple(child._pick(self.calls[number], level) for child in self.children)
                groups.setdefault(picks, []).append(level)
            self.choices[number] = [_Choice(p, of, self._undominated(of, slices)) for p, of in groups.items()]
        return self.choices[number]

    def _pick(self, parents_calls: float, level: int) -> int:
        if self.weights is None:
            return 0
        wanted = parents_calls * self.weights[level]
        return max(0, bisect_right(self.calls, wanted * (1 + ROUNDING)) - 1)

    def _undominated(self, levels: Sequence[int], slices: Array) -> list[int]:
        """The levels of which no other spends less and takes no more slices."""
        best: list[int] = []
        # Latency -> least loss of the levels so far that spend no more of it.
        least = np.full(int(self.latency.max()) + 1, np.inf)
        for i in sorted(levels, key=lambda i: (slices[i], self.latency[i], self.loss[i])):
            latency, loss = self.latency[i], self.loss[i]
            if loss < least[latency]:
                best.append(i)
                np.minimum(least[latency:], loss, out=least[latency:])
        return best


class _Choice(NamedTuple):
    """Levels at which the children are called as often.

    Attributes:
        picks: By child, the number of calls.
        levels: All of them.
        told: Those that are undominated.
    """

    picks: tuple[int, ...]
    levels: list[int]
    told: list[int]


def _forest(workload: Workload, found: TaskConfigurations) -> list[_Task]:
    """The tasks of a graph in topological order, each with one parent."""
    graph = workload.graph
    mean = graph.slo.accuracy_mode == "mean"
    budget, loss_bins = accuracy_budget(graph) + TOLERANCE, MEAN_LOSS_BINS
    if not mean:
        budget, loss_bins = telling_apart(graph, {task: {c.loss for c in of} for task, of in found.items()}, budget)
    wanted = max(LEAST_LATENCY_BINS, LATENCY_BINS_A_TASK * len(graph.tasks))
    bins = min(wanted, max(FEWEST_LATENCY_BINS, MOST_CELLS // (len(graph.tasks) * loss_bins)))
    latency_scale, bin_ms = bins / graph.tasks_ms, graph.tasks_ms / bins
    fastest = {task: min(c.latency_ms for c in of) for task, of in found.items()}
    after_ms = longest_after(graph, fastest)
    parents = _parents(graph, fastest)
    made: dict[str, _Task] = {}
    for name, task in graph.tasks.items():
        cover: Cover = MeanCover(found[name], bin_ms, budget, loss_bins) if mean else FloorCover(found[name], bin_ms)
        parent = made.get(parents.get(name, ""))
        rule = calls(graph, task)
        weights: tuple[float, ...] | None = None
        numbers = {rule.factor}
        if rule.source is not None and parent is not None:
            weights = parent.cover.fewest({c.variant: rule.weight(graph, c.variant) for c in found[parent.name]})
            numbers = {n * w for n in parent.calls for w in weights}
        made[name] = here = _Task(
            name=name,
            demand_rps=workload.demand_rps,
            cover=cover,
            latency=rounded_down(cover.latency_ms * latency_scale, bins),
            loss=rounded_down(cover.loss / budget * loss_bins, loss_bins),
            tail=min(int(after_ms[name] * latency_scale), bins),
            shape=(bins + 1, loss_bins + 1),
            calls=_thinned(sorted(numbers)),
            parent=parent,
            weights=weights,
        )
        if parent is not None:
            parent.children.append(here)
    return list(made.values())


def _parents(graph: TaskGraph, fastest: Mapping[str, float]) -> dict[str, str]:
    """Task -> the task whose calls it follows, else the dependency at the end of the slowest path."""
    upto_ms: dict[str, float] = {}
    parents: dict[str, str] = {}
    for name, task in graph.tasks.items():
        before = sorted(graph.before(task))
        upto_ms[name] = fastest[name] + max((upto_ms[d] for d in before), default=0.0)
        source = calls(graph, task).source
        if source is not None:
            parents[name] = source
        elif before:
            parents[name] = max(before, key=lambda d: upto_ms[d])
    return parents


def _thinned(numbers: Sequence[float]) -> tuple[float, ...]:
    if len(numbers) <= MOST_CALLS:
        return tuple(numbers)
    return tuple(numbers[i * len(numbers) // MOST_CALLS] for i in range(MOST_CALLS))
