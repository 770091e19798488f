"""Calls of each task for one request of its graph."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from jigsaw_triton.graph.model import Task, TaskGraph, When
from jigsaw_triton.graph.tensors import TensorRef


@dataclass(frozen=True, slots=True)
class Calls:
    """The rule by which a task's calls follow from the graph's requests or from another task's calls.

    Attributes:
        factor: Calls for each request or each unit of the source.
        source: Task whose calls they follow; None for the graph's requests.
        output: Output of `source` whose rows are the units; None if each call of `source` is one unit.
    """

    factor: float
    source: str | None = None
    output: str | None = None

    def weight(self, graph: TaskGraph, variant: str) -> float:
        """Returns the calls for one call of `source` by this variant."""
        assert self.source is not None
        if self.output is None:
            return self.factor
        return self.factor * graph.tasks[self.source].variant(variant).yields.get(self.output, 1.0)


def calls(graph: TaskGraph, task: Task) -> Calls:
    """Returns the rule by which the calls of `task` follow from the requests or from another task's calls.

    A task without `for_each` is called once for each request. A task that iterates is called once for each row. A graph
    input or a Python step's output has its estimated number of rows; a task's output with rows has, for each call, the
    number that the variant yields. Any other output of a task has one row for each of its calls. A condition multiplies
    the calls by its probability, but only once along a chain of iteration: rows that exist because the condition held
    meet the same condition with certainty.
    """
    over = task.for_each
    if over is None:
        return Calls(_probability(task.when))
    if over.is_graph_input:
        return Calls(_probability(task.when) * graph.inputs[over.name].rows)
    if over.task in graph.steps:
        return Calls(_probability(task.when) * graph.steps[over.task].yields.get(over.name, 1.0))
    source = graph.tasks[over.task]
    factor = 1.0 if _met_before(graph, source, task.when) else _probability(task.when)
    return Calls(factor, source.name, over.name if graph.makes_rows(over) else None)


def most_calls(graph: TaskGraph, variants: Mapping[str, Collection[str]]) -> dict[str, float]:
    """Returns the most calls of each task for a request, over all choices of these variants.

    Args:
        graph: Graph of the tasks.
        variants: Task -> variants to choose from.
    """
    return _extreme_calls(graph, variants, max)


def least_calls(graph: TaskGraph, variants: Mapping[str, Collection[str]]) -> dict[str, float]:
    """Returns the fewest calls of each task for a request; arguments as for `most_calls`."""
    return _extreme_calls(graph, variants, min)


def _extreme_calls(
    graph: TaskGraph, variants: Mapping[str, Collection[str]], extreme: Callable[[Iterable[float]], float]
) -> dict[str, float]:
    found: dict[str, float] = {}
    for task in graph.tasks.values():
        rule = calls(graph, task)
        if rule.source is None:
            found[task.name] = rule.factor
        else:
            found[task.name] = found[rule.source] * extreme(rule.weight(graph, v) for v in variants[rule.source])
    return found


def request_rows(graph: TaskGraph) -> dict[str, float]:
    """Returns the expected rows that a request brings to each task at once, if the task runs for it.

    The variants that yield most count, used or not, profiled or not. Otherwise a looser SLO or one more profile could
    make a plan worse.
    """
    rows: dict[str, float] = {}
    for task in graph.tasks.values():
        over = task.for_each
        if over is None:
            rows[task.name] = 1.0
        elif over.is_graph_input:
            rows[task.name] = graph.inputs[over.name].rows
        elif over.task in graph.steps:
            rows[task.name] = graph.steps[over.task].yields.get(over.name, 1.0)
        elif graph.makes_rows(over):
            yields = max(v.yields.get(over.name, 1.0) for v in graph.tasks[over.task].variants)
            rows[task.name] = rows[over.task] * yields
        else:
            rows[task.name] = rows[over.task]
    return rows


def _probability(when: When | None) -> float:
    return 1.0 if when is None else when.probability


def _met_before(graph: TaskGraph, source: Task, when: When | None) -> bool:
    """Returns True if the rows of `source` exist only when the condition holds."""

    def condition(w: When | None) -> tuple[TensorRef, float | None, float | None] | None:
        return None if w is None else (w.tensor, w.above, w.below)

    if when is None:
        return False
    link: Task | None = source
    while link is not None:
        if condition(link.when) == condition(when):
            return True
        over = link.for_each
        link = None if over is None else graph.tasks.get(over.task)
    return False
