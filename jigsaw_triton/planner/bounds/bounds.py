"""Lower bounds on the slices of any plan that uses a configuration, which exclude configurations without solving.

The bounds come from dynamic programming over a relaxation of one graph's part of the program
(`planner.formulation.model`):

- Latency and accuracy loss are rounded down to bins, a fixed number of which make up the SLO.
- Where paths join, each task keeps only one parent, so that the graph becomes a forest. The omitted rest of a path
  counts with its minimum latency.
- A task's calls are the fewest that its source's variants allow, given the source's own accuracy loss.
- Layouts are ignored: any number of slices of any kind is available.
- A configuration that shares a slice costs only its share of it.

Given its shares of latency and loss, a task needs the slices that cover its rate (`planner.bounds.cover`). Each of
these steps can only lower the count, so the result is a lower bound; `benchmarks.planner` measures its gap to the
optimum.
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
from jigsaw_triton.planner.bounds.bins import choose_loss_bins, rounded_down
from jigsaw_triton.planner.bounds.cover import Cover, FloorCover, MeanCover
from jigsaw_triton.planner.candidates.configurations import (
    Configuration,
    TaskConfigurations,
    accuracy_budget,
)
from jigsaw_triton.planner.domain.paths import longest_after, longest_through
from jigsaw_triton.planner.domain.rates import calls
from jigsaw_triton.planner.domain.remembered import remembered
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR, ROUNDING, TOLERANCE

LEAST_LATENCY_BINS = 400
"""Smallest number of latency bins of the SLO for a small graph. A convention."""

LATENCY_BINS_A_TASK = 100
"""Latency bins for each task, as rounding errors add up along a path. A convention."""

MOST_CELLS = 3_000_000
"""Largest number of cells of all tables together; larger graphs get coarser latency bins. A convention that limits
memory and time."""

FEWEST_LATENCY_BINS = 100
"""Smallest number of latency bins, even if the tables then exceed `MOST_CELLS`. A convention."""

MOST_CALLS = 8
"""Largest number of distinct call rates for which a task has tables; others round down to the next. A convention that
limits time."""

MEAN_LOSS_BINS = 24
"""Bins of loss if the accuracy SLO is a mean. A task may then lose up to a bin more than it is charged for. A
convention."""

_SLACK = 1e-3
"""Error of sums of shares of slices in single precision, in slices; for large sums, its square relative to the sum. A
convention."""

_WIDER = 0.02
"""Relative step by which a limit on slices is raised while a task has no configuration within it. A convention."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Lower bounds of one graph.

    Attributes:
        least: Lower bound on the compute slices of any plan; infinite if there is none.
        witness: Task -> latency and accuracy loss with which, by the bound, few slices suffice; within the SLO if such
            a choice was found.
        witnessed: Lower bound on compute slices with the witness; usually equal to `least`.
    """

    least: float
    witness: Mapping[str, tuple[float, float]]
    witnessed: float
    _tasks: "Sequence[_Task]" = field(repr=False)
    _using: "dict[float, Mapping[Configuration, float]]" = field(default_factory=dict, repr=False)

    def using(self, most: float) -> Mapping[Configuration, float]:
        """Returns, for each configuration, a lower bound on the compute slices of any plan that uses it.

        Args:
            most: Limit above which bounds are returned as infinite; the lower it is, the faster the computation.
        """
        known = max(self._using, default=-math.inf)
        if most > known:
            self._using.clear()
            self._using[most] = _using(self._tasks, most)
            known = most
        return self._using[known]

    def within(self, most: float, found: TaskConfigurations) -> dict[str, tuple[Configuration, ...]]:
        """Returns, for each task, the configurations that plans of up to `most` slices may use; at least one."""
        limit = most + _SLACK * max(1.0, _SLACK * most)
        using = self.using(limit)
        kept = {task: tuple(c for c in every if using[c] <= limit) for task, every in found.items()}
        if all(kept.values()):
            return kept
        wider = self.within(max(self.least, most + max(1.0, _WIDER * most)), found)
        return {task: some or wider[task] for task, some in kept.items()}

    def likely(self, more: float, found: TaskConfigurations) -> dict[str, tuple[Configuration, ...]]:
        """Returns, for each task, the configurations of the witness, among which a plan of few slices is likely.

        Args:
            more: Relative distance from the least bound beyond which configurations are excluded, unless the witness
                may need them.
            found: Configurations to choose from.
        """
        within = self.within(max((1 + more) * self.least, self.witnessed), found)
        witnessed = {
            task: tuple(c for c in some if c.latency_ms <= self.witness[task][0] and c.loss <= self.witness[task][1])
            for task, some in within.items()
        }
        return {task: some or within[task] for task, some in witnessed.items()}


def least_slices(workload: Workload, found: TaskConfigurations) -> Bounds:
    """Computes lower bounds on the compute slices of plans for one graph.

    Args:
        workload: Graph and demand.
        found: Configurations of the graph, at least one for each task.
    """
    tasks = _forest(workload, found)
    for task in reversed(tasks):
        task.compute_below()
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
            task.set_elsewhere(sum(least for name, least in trees.items() if name != task.name))
        using |= task.compute_using(most)
    return using


def _witness(graph: TaskGraph, tasks: "Sequence[_Task]") -> tuple[dict[str, tuple[float, float]], float]:
    """Returns `Bounds.witness` and `Bounds.witnessed`.

    Latencies and losses that were rounded down to bins may exceed the SLO together. Then fewer bins are used, until
    they do not.
    """
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
        accurate = graph.slo.accuracy_mode == "mean" or _longest(graph, loss) <= accuracy_budget(graph) + FLOAT_ERROR
        if accurate and _longest(graph, ms) <= graph.tasks_ms:
            return levels, slices
    assert first is not None, "the least is finite"
    return first


def _longest(graph: TaskGraph, weight: Mapping[str, float]) -> float:
    return max(longest_through(graph, weight).values())


@dataclass(slots=True, eq=False)
class _Task:
    """A task of the forest. The axes of its tables are bins of latency and of loss, either left or spent.

    A call rate is given by its index in `calls`.

    Attributes:
        name: Name of the task.
        demand_rps: Demand of the graph.
        cover: Slices that the task needs at each level of latency and loss.
        latency: Level -> bins of latency.
        loss: Level -> bins of loss.
        tail: Bins of latency that the rest of the task's longest path takes at least.
        shape: Shape of the tables.
        calls: Numbers of calls for a request for which there are tables, ascending.
        parent: Task that this one follows.
        weights: Level of the parent -> calls for one call of the parent; None if the calls do not depend on the parent.
        children: Tasks that follow this one.
        below: Call rate -> table of the slices of this task and all below it, by the bins left for them.
        around: Call rate -> table of the slices of all other tasks, by the bins spent before this one.
        choices: Call rate -> cached result of `_choices`.
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
        """Returns the lower bound on the slices of a root's tree."""
        return float(self.below[0][-1, -1])

    def set_elsewhere(self, elsewhere: float) -> None:
        """Sets the slices of the other trees, for a root."""
        self._around(0)[0, 0] = elsewhere

    def compute_below(self) -> None:
        """Computes `below`, which needs that of the children."""
        for number in range(len(self.calls)):
            table = np.full(self.shape, np.inf, np.float32)
            slices = self._slices(number)
            for choice in self._choices(number):
                children = self._children(choice.picks)
                for i in choice.undominated:
                    spent, end = self._spent(i)
                    if end[0] > self.tail:
                        part = table[spent[0] + self.tail :, spent[1] :]
                        np.minimum(part, children[self.tail : end[0], : end[1]] + slices[i], out=part)
            self.below.append(table)

    def compute_using(self, most: float) -> dict[Configuration, float]:
        """Returns the bound with each configuration, infinite above `most`; updates `around` of the children."""
        using = np.full(len(self.cover.configurations), math.inf)
        for number, around in self.around.items():
            slices = self._slices(number)
            others = np.full(len(slices), np.inf)
            for choice in self._choices(number):
                self._update_others(choice, around, slices, most, others)
            levels = np.flatnonzero(others + slices <= most)
            which, at = np.nonzero(self.cover.allowing(levels))
            with_it = self.cover.slices_with(which, self.calls[number] * self.demand_rps, levels[at])
            together = others[levels[at]] + np.maximum(slices[levels[at]], with_it)
            np.minimum.at(using, which, together)
        using[using > most] = math.inf
        return dict(zip(self.cover.configurations, using.tolist(), strict=True))

    def _update_others(
        self, choice: "_Choice", around: Array, slices: Array, most: float, others: NDArray[Any]
    ) -> None:
        """Computes the slices of all other tasks for each level, and updates the children, up to `most` in sum."""
        left = self._children(choice.picks)[::-1, ::-1]
        fewest, undominated = float(slices[choice.levels].min()), set(choice.undominated)
        known: dict[tuple[int, int], float] = {}
        # Latency spent -> loss from which on the others need too many slices: they need more, the more is spent.
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
            if i in undominated and others[i] + slices[i] <= most:
                self._update_children(choice.picks, before + slices[i], after)

    def descend(self, number: int, left: tuple[int, int], witness: dict[str, tuple[float, float]]) -> None:
        """Adds to `witness` the levels of fewest slices within the bins left, for this task and those below."""
        slices = self._slices(number)
        best, level, picks = math.inf, 0, (0,) * len(self.children)
        for choice in self._choices(number):
            children = self._children(choice.picks)
            levels = np.array(choice.undominated)
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

    def _update_children(self, picks: tuple[int, ...], before: Array, after: tuple[slice, slice]) -> None:
        for child, pick in zip(self.children, picks, strict=True):
            siblings = self._children(picks, exclude=child)[::-1, ::-1]
            part = child._around(pick)[after]
            np.minimum(part, before + siblings[after], out=part)

    def _around(self, number: int) -> Array:
        if number not in self.around:
            self.around[number] = np.full(self.shape, np.inf, np.float32)
        return self.around[number]

    def _children(self, picks: tuple[int, ...], exclude: "_Task | None" = None) -> Array:
        table = np.zeros(self.shape, np.float32)
        for child, pick in zip(self.children, picks, strict=True):
            if child is not exclude:
                table = table + child.below[pick]
        return table

    def _spent(self, level: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Returns the bins that a level spends, and the end of the range of bins spent before it, without the tail."""
        latency, loss = int(self.latency[level]), int(self.loss[level])
        return (latency, loss), (max(self.shape[0] - latency, 0), max(self.shape[1] - loss, 0))

    def _choices(self, number: int) -> "list[_Choice]":
        """Groups the levels by the call rates of the children."""
        if number not in self.choices:
            slices, groups = self._slices(number), dict[tuple[int, ...], list[int]]()
            for level in range(len(self.loss)):
                picks = tuple(child._pick(self.calls[number], level) for child in self.children)
                groups.setdefault(picks, []).append(level)
            self.choices[number] = [
                _Choice(picks, levels, self._undominated(levels, slices)) for picks, levels in groups.items()
            ]
        return self.choices[number]

    def _pick(self, parents_calls: float, level: int) -> int:
        if self.weights is None:
            return 0
        wanted = parents_calls * self.weights[level]
        return max(0, bisect_right(self.calls, wanted * (1 + ROUNDING)) - 1)

    def _undominated(self, levels: Sequence[int], slices: Array) -> list[int]:
        """Returns the levels for which no other spends as little latency and loss and needs as few slices."""
        best: list[int] = []
        # Latency -> smallest loss of the levels so far that spend no more latency.
        least = np.full(int(self.latency.max()) + 1, np.inf)
        for i in sorted(levels, key=lambda i: (slices[i], self.latency[i], self.loss[i])):
            latency, loss = self.latency[i], self.loss[i]
            if loss < least[latency]:
                best.append(i)
                np.minimum(least[latency:], loss, out=least[latency:])
        return best


class _Choice(NamedTuple):
    """Levels with the same call rates of the children.

    Attributes:
        picks: Call rate of each child.
        levels: All these levels.
        undominated: Undominated ones of these levels.
    """

    picks: tuple[int, ...]
    levels: list[int]
    undominated: list[int]


def _forest(workload: Workload, found: TaskConfigurations) -> list[_Task]:
    """Returns the tasks of a graph in topological order, each with one parent."""
    graph = workload.graph
    mean = graph.slo.accuracy_mode == "mean"
    budget, loss_bins = accuracy_budget(graph) + TOLERANCE, MEAN_LOSS_BINS
    if not mean:
        budget, loss_bins = choose_loss_bins(
            graph, {task: {c.loss for c in every} for task, every in found.items()}, budget
        )
    wanted = max(LEAST_LATENCY_BINS, LATENCY_BINS_A_TASK * len(graph.tasks))
    bins = min(wanted, max(FEWEST_LATENCY_BINS, MOST_CELLS // (len(graph.tasks) * loss_bins)))
    latency_scale, bin_ms = bins / graph.tasks_ms, graph.tasks_ms / bins
    fastest = {task: min(c.latency_ms for c in every) for task, every in found.items()}
    after_ms = longest_after(graph, fastest)
    parents = _parents(graph, fastest)
    made: dict[str, _Task] = {}
    for name, task in graph.tasks.items():
        cover = _cover((graph.name, name), found[name], bin_ms, (budget, loss_bins) if mean else None)
        parent = made.get(parents.get(name, ""))
        rule = calls(graph, task)
        weights: tuple[float, ...] | None = None
        numbers = {rule.factor}
        if rule.source is not None and parent is not None:
            weights = parent.cover.fewest({c.variant: rule.weight(graph, c.variant) for c in found[parent.name]})
            numbers = {n * w for n in parent.calls for w in weights}
        made[name] = node = _Task(
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
            parent.children.append(node)
    return list(made.values())


@remembered()
def _cover(
    name: tuple[str, str], found: tuple[Configuration, ...], bin_ms: float, mean: tuple[float, int] | None
) -> Cover:
    """Returns the cover of a task; remembered, as it does not depend on the demand.

    Args:
        name: Names of the graph and of the task.
        found: Configurations of the task.
        bin_ms: Width of a bin in milliseconds.
        mean: Largest loss along a path and its number of bins, if the accuracy SLO is a mean.
    """
    return FloorCover(found, bin_ms) if mean is None else MeanCover(found, bin_ms, *mean)


def _parents(graph: TaskGraph, fastest: Mapping[str, float]) -> dict[str, str]:
    """Returns, for each task, the task whose calls it follows, else the dependency at the end of the slowest path."""
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
