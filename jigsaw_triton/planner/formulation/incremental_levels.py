"""The largest weight of the configurations that a task uses, as linear constraints in incremental form.

There is a binary column for each level above the lowest, and a level is reached only if the one below it is. A plain
"weight times use" bounds the largest weight as well, but its relaxation uses a little of every configuration at almost
no weight. A level gates all configurations above it at once, which makes the relaxation much tighter.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.solver.program import Draft, Terms


@dataclass(frozen=True, slots=True)
class Weight:
    """Weight that a task adds to each path through it: `least` plus the sum of the terms."""

    least: float
    terms: Terms = ()


@dataclass(frozen=True, slots=True)
class Level:
    """A column that is 1 if a configuration of at least `weight` may be used.

    `rise` is the difference from the level below.
    """

    weight: float
    column: int
    rise: float


@dataclass(frozen=True, slots=True)
class IncrementalLevels:
    """Levels of one task: a used configuration weighs at most `least` plus the rises of the levels reached."""

    least: float
    levels: tuple[Level, ...]

    @property
    def weight(self) -> Weight:
        """Largest weight of a used configuration."""
        return Weight(self.least, tuple((level.column, level.rise) for level in self.levels))

    def gate(self, weight: float) -> int | None:
        """Returns the column that must be 1 to use a configuration of this weight; None for the lowest weight."""
        return next((level.column for level in self.levels if level.weight == weight), None)


def incremental_levels(draft: Draft, weights: Iterable[float]) -> IncrementalLevels:
    """Adds a column for each distinct weight above the lowest; each is at most the column below it."""
    least, *higher = sorted(set(weights))
    levels: list[Level] = []
    for weight in higher:
        column = draft.integer(1)
        if levels:
            draft.at_most(0, [(column, 1), (levels[-1].column, -1)])
        levels.append(Level(weight, column, weight - (levels[-1].weight if levels else least)))
    return IncrementalLevels(least, tuple(levels))


def path_ends(draft: Draft, graph: TaskGraph, weights: Mapping[str, Weight]) -> list[int]:
    """Adds columns, one for each last task of a path, that are at least the sum of weights along any path to it."""
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
