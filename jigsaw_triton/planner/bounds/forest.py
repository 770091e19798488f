"""The forest that replaces a graph in the relaxation of `planner.bounds.bounds`, with the bins of its tables."""

from collections.abc import Mapping, Sequence

from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.bounds.bins import choose_loss_bins, rounded_down
from jigsaw_triton.planner.bounds.cover import Cover, FloorCover, MeanCover
from jigsaw_triton.planner.bounds.tables import TaskTables
from jigsaw_triton.planner.candidates.configurations import Configuration, TaskConfigurations, accuracy_budget
from jigsaw_triton.planner.domain.paths import longest_after
from jigsaw_triton.planner.domain.rates import calls
from jigsaw_triton.planner.domain.remembered import remembered
from jigsaw_triton.planner.domain.tolerances import TOLERANCE

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


def forest(workload: Workload, found: TaskConfigurations) -> list[TaskTables]:
    """Returns the tasks of a graph in topological order, each with one parent and without its tables.

    Args:
        workload: Graph and demand.
        found: Configurations of the graph, at least one for each task.
    """
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
    made: dict[str, TaskTables] = {}
    for name, task in graph.tasks.items():
        cover = _cover((graph.name, name), found[name], bin_ms, (budget, loss_bins) if mean else None)
        parent = made.get(parents.get(name, ""))
        rule = calls(graph, task)
        weights: tuple[float, ...] | None = None
        numbers = {rule.factor}
        if rule.source is not None and parent is not None:
            weights = parent.cover.fewest({c.variant: rule.weight(graph, c.variant) for c in found[parent.name]})
            numbers = {n * w for n in parent.calls for w in weights}
        made[name] = node = TaskTables(
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
