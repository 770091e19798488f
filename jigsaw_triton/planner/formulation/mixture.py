"""The mean accuracy of a task whose calls are divided among variants, as linear constraints.

A task's mean accuracy is the mean of its variants' relative accuracies, weighted by their shares of its calls. The mean
accuracy of a path is the product of its tasks' means: each task divides its calls independently of the others, so the
variant that serves one task of a request says nothing about the next. In logarithms, the losses -log(mean) of a path's
tasks add up to at most -log(SLO).

The loss of a mixture is convex in the shares, so secants between knots bound it from above, and a plan that keeps the
secants keeps the SLO. Between knots, a secant exceeds the loss by at most the squared distance of the knots over 8 (the
second derivative of -log, in terms of its own value, is 1). `FINENESS` keeps that excess below `TOLERANCE` for each
task. At the knots, which include each variant alone, there is no excess. So every plan that keeps the accuracy for each
request is feasible here, too.

If the variants upstream yield different numbers of rows, a task's calls T are not constant, and T times its loss E is a
product of variables. Then E is put into one of several equal brackets with lower end `low`, and the product is replaced
by the lower bound `low T + least T (E - low)`. That requires too much by at most the bracket's width times
(1 - least T / T), which is `EXCESS` of the task's allowed loss as long as `MOST_BRACKETS` suffice.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.candidates.configurations import accuracy_budget, loss
from jigsaw_triton.planner.domain.accuracy import PairTable
from jigsaw_triton.planner.domain.paths import longest_through
from jigsaw_triton.planner.domain.rates import least_calls, most_calls
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR, TOLERANCE
from jigsaw_triton.planner.formulation.incremental_levels import Weight
from jigsaw_triton.planner.solver.program import Draft

FINENESS = math.sqrt(8 * TOLERANCE)
"""Largest distance of knots, as a loss. It makes the excess of secants `TOLERANCE`, see above."""

EXCESS = 0.01
"""Share of a task's allowed loss that brackets may require too much. A convention."""

MOST_BRACKETS = 32
"""Largest number of brackets of a task, each with a binary variable. A convention that limits solving time."""

Knots = tuple[float, ...]
"""Losses at which secants meet, ascending."""


def mean_weights(
    draft: Draft, graph: TaskGraph, shares: Mapping[str, Mapping[str, int]], units: Mapping[str, float]
) -> dict[str, Weight]:
    """Adds an upper bound on the loss of each task's mean accuracy; omits tasks that may never be called.

    Args:
        draft: Program to add to.
        graph: Graph of the tasks.
        shares: Task -> variant -> column of its part of the task's calls.
        units: Task -> sum of the task's columns when it has the most calls.
    """
    most, least = most_calls(graph, shares), least_calls(graph, shares)
    every = {name: [v.name for v in task.variants] for name, task in graph.tasks.items()}
    most_of_all, least_of_all = most_calls(graph, every), least_calls(graph, every)
    found: dict[str, Weight] = {}
    for task, columns in shares.items():
        if least[task] > 0:
            terms = [(column, 1 / units[task]) for column in columns.values()]
            losses = [loss(graph.tasks[task], variant) for variant in columns]
            brackets = _brackets(graph, task, least_of_all[task] / most_of_all[task])
            found[task] = _weight(draft, terms, losses, brackets, least[task] / most[task])
    return found


def _weight(
    draft: Draft,
    terms: Sequence[tuple[int, float]],
    losses: Sequence[float],
    brackets: Sequence[Knots],
    least: float,
) -> Weight:
    """Adds an upper bound on the loss of a task's mean accuracy.

    Args:
        draft: Program to add to.
        terms: Term of the calls of each variant, relative to the most calls of the task.
        losses: Loss of each variant.
        brackets: Knots of each bracket of loss; brackets are adjacent and the first begins at 0.
        least: Fewest calls of the task, relative to the most.
    """
    if max(losses) - min(losses) <= FLOAT_ERROR:
        return Weight(max(losses))
    if least >= 1 - FLOAT_ERROR:
        brackets = [(0.0, *(knot for knots in brackets for knot in knots[1:]))]
    column = draft.real(brackets[-1][-1])
    beyond = [draft.integer(1) for _ in brackets[1:]]
    for number, knots in enumerate(brackets):
        low = knots[0]
        for at, slope in map(_secant, knots, knots[1:]):
            # T (at - slope A) <= low T + least (E - low), unless E is in a higher bracket. A is the mean accuracy.
            over = [at - slope * math.exp(-value) - low for value in losses]
            row = [(share, part * value) for (share, part), value in zip(terms, over, strict=True)]
            if number < len(beyond):
                row.append((beyond[number], -max(0.0, *over) - least * low))
            draft.at_most(-least * low, [*row, (column, -least)])
    # A bracket's binary is 1 if E is beyond its end.
    widths = [knots[-1] - knots[0] for knots in brackets]
    draft.at_least(0, [(column, 1.0), *((step, -width) for step, width in zip(beyond, widths, strict=False))])
    above = [(step, -width) for step, width in zip(beyond, widths[1:], strict=True)]
    draft.at_most(widths[0], [(column, 1.0), *above])
    for lower, upper in pairwise(beyond):
        draft.at_most(0, [(upper, 1.0), (lower, -1.0)])
    return Weight(0.0, ((column, 1.0),))


def _brackets(graph: TaskGraph, task: str, least: float) -> list[Knots]:
    """Returns the brackets of a task's loss, ascending.

    They depend only on the graph and the SLO, and so are the same whichever variants are candidates. Each variant's
    loss is the lower end of a bracket, where there is no excess. The last bracket has no width.

    Args:
        graph: Graph of the task.
        task: Name of the task.
        least: Fewest calls of the task over all variants, relative to the most.
    """
    losses = [loss(graph.tasks[task], variant.name) for variant in graph.tasks[task].variants]
    most = min(accuracy_budget(graph), max(losses))
    number = min(MOST_BRACKETS, max(1, math.ceil((1 - least) / EXCESS)))
    bounds = [0.0]
    for bound in sorted(
        {*(value for value in losses if value < most), *(most * i / number for i in range(number + 1))}
    ):
        if bound - bounds[-1] > FLOAT_ERROR:
            bounds.append(bound)
    return [_knots(low, high) for low, high in pairwise([*bounds, bounds[-1]])]


def _knots(low: float, high: float) -> Knots:
    """Divides an interval into equal parts no longer than `FINENESS`."""
    parts = max(1, math.ceil((high - low) / FINENESS))
    return (*(low + (high - low) * i / parts for i in range(parts)), high)


def _secant(low: float, high: float) -> tuple[float, float]:
    """Returns intercept and negative slope of the secant of -log between two of its values, or of the tangent."""
    width = high - low
    slope = math.exp(low) * (width / -math.expm1(-width) if width > 0 else 1.0)
    return low + slope * math.exp(-low), slope


def mean_accuracy(
    graph: TaskGraph, mixes: Mapping[str, Mapping[str, float]], tables: Iterable[PairTable] = ()
) -> float:
    """Returns the mean relative accuracy along the worst path.

    Args:
        graph: Graph of the tasks.
        mixes: Task -> variant -> share of the task's calls.
        tables: Measured pairs that replace products of accuracies; see `deciding_tables`.
    """
    lost = {task: mean_loss(graph, task, shares) for task, shares in mixes.items()}
    for table in tables:
        # Both tasks are on the same paths.
        first, second = table.tasks
        lost |= {first: table.mean(mixes), second: 0.0}
    return math.exp(-max(longest_through(graph, lost).values()))


def mean_loss(graph: TaskGraph, task: str, shares: Mapping[str, float]) -> float:
    """Returns minus the logarithm of a task's mean accuracy by its variants' shares, whose sum must be above 0."""
    total = sum(shares.values())
    return -math.log(sum(s * math.exp(-loss(graph.tasks[task], v)) for v, s in shares.items()) / total)
