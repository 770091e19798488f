"""Accuracies of pairs of variants that were measured end to end, in place of products.

The planner multiplies the relative accuracies of tasks along a path, as if they erred independently. Where every pair
of the variants of two tasks was measured (`profile --accuracy --pairs`), the table of pairs replaces the product:

- Two variants whose pair does not keep the accuracy SLO must not serve together (`excluded`).
- The variants get the largest accuracies whose product is at least the measured one of each pair (`with_pairs`). These
  are optimistic, so the planner's filters and lower bounds, which add up losses of tasks, stay valid.

Both together are exact, if the two tasks alone decide the accuracy of their paths: each path through one of them has
the other too, and all other tasks on it have one variant. Elsewhere, and if the SLO is a mean, products remain.

Accuracies of pairs are relative to the best pair.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from jigsaw_triton.graph.measured import Combination
from jigsaw_triton.graph.model import Task, TaskGraph
from jigsaw_triton.planner.domain.paths import count_paths
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR

Use = tuple[str, str]
"""Task and variant."""

Way = tuple[str, str, int] | None
"""Metric, labelled set and number of requests of a measurement."""

Losses = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True)
class PairTable:
    """Measured pairs of variants of two tasks.

    Attributes:
        tasks: Names of the tasks, sorted.
        loss: (variant of the first task, variant of the second) -> minus the logarithm of the accuracy relative to the
            best measured pair.
        how: Way in which all of them were measured.
    """

    tasks: tuple[str, str]
    loss: Losses
    how: Way = None

    def worst(self, used: Mapping[str, Collection[str]]) -> float:
        """Returns the largest loss of the measured pairs of these variants; 0 if there is none.

        Args:
            used: Task -> variants, any two of which may answer a request.
        """
        first, second = self.tasks
        pairs = ((one, other) for one in used[first] for other in used[second])
        return max((self.loss[pair] for pair in pairs if pair in self.loss), default=0.0)

    def mean(self, mixes: Mapping[str, Mapping[str, float]]) -> float:
        """Returns minus the logarithm of the mean accuracy, if the tasks' variants are chosen independently.

        Args:
            mixes: Task -> variant -> share of the task's calls, whose sum must be above 0.
        """
        first, second = (mixes[task] for task in self.tasks)
        total = sum(first.values()) * sum(second.values())
        pairs = ((one, other, a * b) for one, a in first.items() for other, b in second.items())
        return -math.log(sum(weight * math.exp(-self.loss[one, other]) for one, other, weight in pairs) / total)


@dataclass(frozen=True, slots=True)
class ProductError:
    """Error of the product of two tasks' accuracies, compared with the accuracy measured end to end.

    Attributes:
        tasks: Names of the tasks, in the order of the graph.
        variants: The pair of variants in use with the lowest measured accuracy.
        measured: Accuracy of that pair relative to the best measured one.
        product: Product of the variants' accuracies, relative to the best variants.
        used: True if the plan is made with the measured accuracy, False if with the product.
    """

    tasks: tuple[str, ...]
    variants: tuple[str, ...]
    measured: float
    product: float
    used: bool

    @property
    def points(self) -> float:
        """Error of the product in percentage points; above 0 if it is too high."""
        return 100 * (self.product - self.measured)


def pair_tables(graph: TaskGraph) -> tuple[PairTable, ...]:
    """Returns the measured pairs of a graph, by tasks: of those measured in different ways, the most that are alike."""
    found: dict[tuple[str, ...], dict[Way, dict[tuple[str, str], float]]] = {}
    for combination in graph.combinations:
        if len(combination.variants) == 2:
            (first, one), (second, other) = sorted(combination.variants.items())
            found.setdefault((first, second), {}).setdefault(way(combination), {})[one, other] = combination.accuracy
    tables = []
    for (first, second), ways in sorted(found.items()):
        how, table = max(ways.items(), key=lambda item: len(item[1]))
        loss = {pair: math.log(max(table.values()) / accuracy) for pair, accuracy in table.items()}
        tables.append(PairTable((first, second), loss, how))
    return tuple(tables)


def way(combination: Combination) -> Way:
    """Returns how a combination was measured; None if that is not known."""
    return combination.measured.how if combination.measured is not None else None


def deciding_tables(graph: TaskGraph) -> tuple[PairTable, ...]:
    """Returns the tables that replace products: complete ones, of tasks that alone decide the accuracy of their paths.

    No two of them have a task in common.
    """
    if graph.slo.accuracy_mode == "mean":
        return ()
    return tuple(table for table in pair_tables(graph) if _is_complete(graph, table) and _decides(graph, table))


def _is_complete(graph: TaskGraph, table: PairTable) -> bool:
    first, second = (graph.tasks[task].variants for task in table.tasks)
    return all((one.name, other.name) in table.loss for one in first for other in second)


def _decides(graph: TaskGraph, table: PairTable) -> bool:
    both = count_paths(graph, table.tasks)
    others = [name for name, task in graph.tasks.items() if len(task.variants) > 1 and name not in table.tasks]
    return all(
        count_paths(graph, [end]) == both and not any(count_paths(graph, [end, other]) for other in others)
        for end in table.tasks
    )


def with_pairs(graph: TaskGraph) -> TaskGraph:
    """Returns the graph with the deciding tables as its only combinations, and optimistic accuracies of their tasks.

    The accuracies depend on the tables alone, so that the result for the result is the same.
    """
    tables = deciding_tables(graph)
    tasks = dict(graph.tasks)
    for table in tables:
        for name, losses in zip(table.tasks, optimistic(table), strict=True):
            tasks[name] = _with_losses(tasks[name], losses)
    kept = {(table.tasks, table.how) for table in tables}
    combinations = tuple(c for c in graph.combinations if (tuple(sorted(c.variants)), way(c)) in kept)
    return replace(graph, tasks=tasks, combinations=combinations)


def _with_losses(task: Task, losses: Mapping[str, float]) -> Task:
    return replace(task, variants=tuple(replace(v, accuracy=math.exp(-losses[v.name])) for v in task.variants))


def optimistic(table: PairTable) -> tuple[dict[str, float], dict[str, float]]:
    """Returns losses of the variants of both tasks, at least 0, whose sum never exceeds the loss of a pair.

    The best pair's variants lose nothing.
    """
    best, _ = min(table.loss, key=lambda pair: (table.loss[pair], pair))
    seconds = {other for _, other in table.loss}
    firsts = {one for one, _ in table.loss}
    # The largest losses of the first task beside those that the second task has with the best variant of the first.
    first = {
        one: max(0.0, min(table.loss[one, other] - table.loss[best, other] for other in seconds)) for one in firsts
    }
    second = {other: min(table.loss[one, other] - first[one] for one in firsts) for other in seconds}
    return first, second


def excluded(graph: TaskGraph) -> tuple[tuple[Use, Use], ...]:
    """Returns the pairs of variants that must not serve together, because the pair does not keep the accuracy SLO.

    Args:
        graph: Graph that `with_pairs` returned.
    """
    budget = -math.log(graph.slo.accuracy) + FLOAT_ERROR
    return tuple(
        ((table.tasks[0], one), (table.tasks[1], other))
        for table in pair_tables(graph)
        for (one, other), loss in sorted(table.loss.items())
        if loss > budget
    )


def with_pair_losses(
    graph: TaskGraph, lost: Mapping[str, float], used: Mapping[str, Collection[str]]
) -> dict[str, float]:
    """Returns the loss of each task with the measured loss of a pair at one of its tasks, and none at the other.

    The sum along each path is then the largest loss of a request.

    Args:
        graph: Graph that `with_pairs` returned.
        lost: Task -> largest loss of its variants in use.
        used: Task -> variants in use.
    """
    found = dict(lost)
    for table in pair_tables(graph):
        found |= {table.tasks[0]: table.worst(used), table.tasks[1]: 0.0}
    return found


def product_errors(
    graph: TaskGraph, used: Mapping[str, Collection[str]], *, may_decide: bool
) -> tuple[ProductError, ...]:
    """Returns the errors of products for the measured pairs of variants in use, one for each pair of tasks.

    Args:
        graph: Graph as its graph.yaml has it.
        used: Task -> variants in use.
        may_decide: True if the plan's options allow measured pairs to replace products.
    """
    deciding = {table.tasks for table in deciding_tables(graph)} if may_decide else set[tuple[str, str]]()
    found = []
    for table in pair_tables(graph):
        first, second = (graph.tasks[task] for task in table.tasks)
        pairs = [(one, other) for one in used[first.name] for other in used[second.name] if (one, other) in table.loss]
        if pairs:
            one, other = max(pairs, key=lambda pair: (table.loss[pair], pair))
            product = first.variant(one).accuracy / first.best_accuracy
            product *= second.variant(other).accuracy / second.best_accuracy
            measured = math.exp(-table.loss[one, other])
            ends = {first.name: one, second.name: other}
            tasks = tuple(name for name in graph.tasks if name in ends)
            found.append(
                ProductError(tasks, tuple(map(ends.__getitem__, tasks)), measured, product, table.tasks in deciding)
            )
    return tuple(found)
