"""How often each task is called for one request of its graph."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from jigsaw_triton.graph.model import Task, TaskGraph, TensorRef, When


@dataclass(frozen=True, slots=True)
class Calls:
    """The rule by which calls of a task follow from others'.

    Attributes:
        factor: Calls for each unit of what they follow.
        source: The task whose calls they follow; None for the graph's requests.
        output: Where set, each call of `source` counts as many times as its variant yields rows of this output.
    """

    factor: float
    source: str | None = None
    output: str | None = None

    def weight(self, graph: TaskGraph, variant: str) -> float:
        """Calls for one call of `source` by this variant."""
        assert self.source is not None
        if self.output is None:
            return self.factor
        return self.factor * graph.tasks[self.source].variant(variant).yields.get(self.output, 1.0)


def calls(graph: TaskGraph, task: Task) -> Calls:
    """How the calls of `task` follow from the requests or from another task's calls.

    A task without `for_each` is called once a request. One that iterates is called once a row: of a graph input or of a
    python step's output as many as are estimated, of a task's output with rows as many as its variant yields for each
    of its calls. Other outputs of a task that itself iterates, or is conditional, have one row for each of its calls. A
    condition multiplies by its probability, once along a chain of iteration: rows that are there because of a condition
    meet it again for sure.
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
    """Calls of each task for a request where each task has the variant, of those given, that makes most."""
    return _extreme_calls(graph, variants, max)


def least_calls(graph: TaskGraph, variants: Mapping[str, Collection[str]]) -> dict[str, float]:
    """Likewise of those that make least."""
    return _extreme_calls(graph, variants, min)


def _extreme_calls(
    graph: TaskGraph, variants: Mapping[str, Collection[str]], of: Callable[[Iterable[float]], float]
) -> dict[str, float]:
    found: dict[str, float] = {}
    for task in graph.tasks.values():
        rule = calls(graph, task)
        if rule.source is None:
            found[task.name] = rule.factor
        else:
            found[task.name] = found[rule.source] * of(rule.weight(graph, v) for v in variants[rule.source])
    return found


def request_rows(graph: TaskGraph) -> dict[str, float]:
    """Rows that a request for which a task runs brings to it at once; expected, of the variants that yield most.

    All variants count, used or not, profiled or not: a lighter SLO or one more profile then never makes a plan worse.
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
    """Whether the rows of `source` exist only where the condition holds anyway."""

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
