"""The mean accuracy of a task whose calls are shared out among variants, as linear constraints.

A task's mean accuracy is the mean of its variants' relative accuracies by their shares of its calls. Along a path it is
the product of its tasks': each task hands out its calls by its shares whatever the others do, so which variant does one
task of a request says nothing about the next. In logarithms: the losses -log(mean) of a path's tasks add up to at most
-log(SLO).

The loss of a mixture is convex in the shares, so secants between knots of loss bound it from above, and a plan that
keeps to them keeps the SLO. Between knots they ask for more than the loss itself, by no more than the distance of the
knots squared over 8 (-log has, in terms of itself, a second derivative of 1 there): `FINENESS` keeps that below
`TOLERANCE` a task, and at the knots, among them each variant alone, nothing is lost. So every plan that holds for each
request holds here.

Where the rows that variants upstream yield differ, a task's calls T are not a constant, and T times its loss E is a
product of unknowns. Then E is put in one of several equal brackets, where it is at least `low`, and in the product's
place stands what is no more than it, `low T + least T (E - low)`. What that asks for too much is at most the bracket's
width times (1 - least T / T): `EXCESS` of what the task may lose, as long as `MOST_BRACKETS` do.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.candidates.configurations import accuracy_budget, loss
from jigsaw_triton.planner.domain.rates import least_calls, most_calls
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.formulation.incremental_levels import Weight
from jigsaw_triton.planner.solver.program import Draft

FINENESS = math.sqrt(8 * TOLERANCE)
"""Greatest distance of knots where a task's calls are constant."""

EXCESS = 0.01

MOST_BRACKETS = 32

Knots = tuple[float, ...]
"""Losses, ascending."""

_SAME = 1e-9
"""Bounds of brackets and numbers of calls that are nearer to each other, relative to the greater, are one."""


def mean_weights(
    draft: Draft, graph: TaskGraph, shares: Mapping[str, Mapping[str, int]], units: Mapping[str, float]
) -> dict[str, Weight]:
    """Task -> at least the loss of its mean accuracy; tasks that may never be called are left out: they have no mean.

    Args:
        draft: To add to.
        graph: Of the tasks.
        shares: Task -> variant -> column of its part of the task's calls.
        units: Task -> the value that columns of a task add up to where it is called most.
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
    """At least the loss of a task's mean accuracy.

    Args:
        draft: To add to.
        terms: By variant, of its calls relative to the most calls of the task.
        losses: Of the variants.
        brackets: Of loss, each from the end of the one before, the first from 0.
        least: Calls of the task, relative to the most.
    """
    if max(losses) - min(losses) <= _SAME:
        return Weight(max(losses))
    if least >= 1 - _SAME:
        brackets = [(0.0, *(knot for of in brackets for knot in of[1:]))]
    column = draft.real(brackets[-1][-1])
    beyond = [draft.integer(1) for _ in brackets[1:]]
    for number, knots in enumerate(brackets):
        low = knots[0]
        for at, slope in map(_secant, knots, knots[1:]):
            # T (at - slope A) <= low T + least (E - low), unless E is in a bracket above.
            over = [at - slope * math.exp(-value) - low for value in losses]
            row = [(share, part * value) for (share, part), value in zip(terms, over, strict=True)]
            if number < len(beyond):
                row.append((beyond[number], -max(0.0, *over) - least * low))
            draft.at_most(-least * low, [*row, (column, -least)])
    # E is in the bracket above those whose end it is beyond.
    widths = [knots[-1] - knots[0] for knots in brackets]
    draft.at_least(0, [(column, 1.0), *((step, -width) for step, width in zip(beyond, widths, strict=False))])
    above = [(step, -width) for step, width in zip(beyond, widths[1:], strict=True)]
    draft.at_most(widths[0], [(column, 1.0), *above])
    for lower, upper in pairwise(beyond):
        draft.at_most(0, [(upper, 1.0), (lower, -1.0)])
    return Weight(0.0, ((column, 1.0),))


def _brackets(graph: TaskGraph, task: str, least: float) -> list[Knots]:
    """Of a task's loss, ascending; by graph and SLO alone, so the same whichever of its variants are looked at.

    Each variant's loss is the lower end of one, where nothing is asked for too much; the last one has no width.

    Args:
        graph: Of the task.
        task: Whose.
        least: Calls of the task, relative to the most, by all variants that there are.
    """
    losses = [loss(graph.tasks[task], variant.name) for variant in graph.tasks[task].variants]
    most = min(accuracy_budget(graph), max(losses))
    number = min(MOST_BRACKETS, max(1, math.ceil((1 - least) / EXCESS)))
    bounds = [0.0]
    for bound in sorted(
        {*(value for value in losses if value < most), *(most * i / number for i in range(number + 1))}
    ):
        if bound - bounds[-1] > _SAME:
            bounds.append(bound)
    return [_knots(low, high) for low, high in pairwise([*bounds, bounds[-1]])]


def _knots(low: float, high: float) -> Knots:
    """From one to the other in equal parts no longer than `FINENESS`."""
    parts = max(1, math.ceil((high - low) / FINENESS))
    return (*(low + (high - low) * i / parts for i in range(parts)), high)


def _secant(low: float, high: float) -> tuple[float, float]:
    """Of -log between two of its values, or the tangent where they are one: its value at 0, and how much it falls."""
    width = high - low
    slope = math.exp(low) * (width / -math.expm1(-width) if width > 0 else 1.0)
    return low + slope * math.exp(-low), slope


def mean_loss(graph: TaskGraph, task: str, shares: Mapping[str, float]) -> float:
    """Minus the logarithm of the mean accuracy of a task by its variants' shares, which add up to more than 0."""
    total = sum(shares.values())
    return -math.log(sum(s * math.exp(-loss(graph.tasks[task], v)) for v, s in shares.items()) / total)
