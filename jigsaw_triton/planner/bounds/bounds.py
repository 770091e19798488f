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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.bounds.forest import forest
from jigsaw_triton.planner.bounds.tables import TaskTables
from jigsaw_triton.planner.candidates.configurations import Configuration, TaskConfigurations, accuracy_budget
from jigsaw_triton.planner.domain.paths import longest_after, longest_through
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR

_SLACK = 1e-3
"""Error of sums of shares of slices in single precision, in slices; for large sums, its square relative to the sum. A
convention."""

_WIDER = 0.02
"""Relative step by which a limit on slices is raised while a task has no configuration within it. A convention."""


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
    _tasks: Sequence[TaskTables] = field(repr=False)
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
    tasks = forest(workload, found)
    for task in reversed(tasks):
        task.compute_below()
    least = sum(task.least() for task in tasks if task.parent is None)
    witness, witnessed = _witness(workload.graph, tasks) if least < math.inf else ({}, least)
    return Bounds(least, witness, witnessed, tasks)


def _using(tasks: Sequence[TaskTables], most: float) -> dict[Configuration, float]:
    trees = {task.name: task.least() for task in tasks if task.parent is None}
    for task in tasks:
        task.around.clear()
    using: dict[Configuration, float] = {}
    for task in tasks:
        if task.parent is None:
            task.set_elsewhere(sum(least for name, least in trees.items() if name != task.name))
        using |= task.compute_using(most)
    return using


def _witness(graph: TaskGraph, tasks: Sequence[TaskTables]) -> tuple[dict[str, tuple[float, float]], float]:
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
