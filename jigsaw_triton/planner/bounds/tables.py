"""Tables of slices of one task, from which `planner.bounds.bounds` computes its lower bounds."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.planner.bounds.cover import Cover
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.domain.tolerances import ROUNDING

Array = NDArray[np.float32]


@dataclass(slots=True, eq=False)
class TaskTables:
    """Tables of a task of the forest. Their axes are bins of latency and of loss, either left or spent.

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
    parent: "TaskTables | None"
    weights: tuple[float, ...] | None
    children: "list[TaskTables]" = field(default_factory=list)
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
        # Index: latency spent. Value: loss from which on the other tasks need too many slices. The more latency is
        # spent, the more slices they need.
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

    def _children(self, picks: tuple[int, ...], exclude: "TaskTables | None" = None) -> Array:
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
        # Index: latency. Value: smallest loss of the levels so far that spend no more latency.
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
