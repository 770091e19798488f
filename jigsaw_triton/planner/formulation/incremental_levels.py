"""The largest weight of what a task uses, as linear constraints: by steps, each taken or not.

A plain "weight times in use" bounds it, too, but a solver's relaxation then uses a little of everything at hardly any
weight. Steps say it for all configurations above a weight at once, which relaxes far less.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.solver.program import Draft, Terms


@dataclass(frozen=True, slots=True)
class Weight:
    """What a task adds to the paths through it: `least` and the sum of the terms."""

    least: float
    terms: Terms = ()


@dataclass(frozen=True, slots=True)
class Step:
    """A column that is 1 where anything of at least `weight` may be used.

    `rise` is how much more that is than the step below.
    """

    weight: float
    column: int
    rise: float


@dataclass(frozen=True, slots=True)
class Staircase:
    """The steps of one task: what is used weighs at most `least` plus the rises of the steps taken."""

    least: float
    steps: tuple[Step, ...]

    @property
    def weight(self) -> Weight:
        """The largest that anything in use may have."""
        return Weight(self.least, tuple((step.column, step.rise) for step in self.steps))

    def gate(self, weight: float) -> int | None:
        """The column that must be 1 for anything of this weight to be used; None where nothing need be."""
        return next((step.column for step in self.steps if step.weight == weight), None)


def staircase(draft: Draft, weights: Iterable[float]) -> Staircase:
    """Adds a step for each distinct weight but the least; a step is taken only where the one below is."""
    least, *higher = sorted(set(weights))
    steps: list[Step] = []
    for weight in higher:
        column = draft.integer(1)
        if steps:
            draft.at_most(0, [(column, 1), (steps[-1].column, -1)])
        steps.append(Step(weight, column, weight - (steps[-1].weight if steps else least)))
    return Staircase(least, tuple(steps))


def path_ends(draft: Draft, graph: TaskGraph, weights: Mapping[str, Weight]) -> list[int]:
    """Columns of which each is at least the sum of weights along any path to the end it stands for."""
    end: dict[str, int] = {}
    inner: set[str] = set()
    for task in graph.tasks.values():
        own = weights[task.name]
        end[task.name] = draft.real()
        taken = [(end[task.name], 1.0), *((column, -rise) for column, rise in own.terms)]
        before = sorted(graph.before(task))
        for dependency in before:
            draft.at_least(own.least, [*taken, (end[dependency], -1.0)])
        if not before:
            draft.at_least(own.least, taken)
        inner.update(before)
    return [column for name, column in end.items() if name not in inner]
