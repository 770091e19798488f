"""Moves tasks that follow each other into the same shared slice, as long as that needs no more slices.

A worker then executes them in one call (`graph.chain`), which saves the round trip to the gateway. The plan's
predictions still hold: the tasks take no more cycles of their slice together than one by one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jigsaw_triton.graph.chain import followers
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.candidates.packing import Part, packed
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """Two tasks that may be executed in one call.

    Attributes:
        graph: Name of the graph.
        before: Name of the first task.
        after: Name of the second task.
        rows: True if they iterate over rows, in which case their batch sizes must be equal.
    """

    graph: str
    before: str
    after: str
    rows: bool


def links(workloads: Iterable[Workload]) -> tuple[Link, ...]:
    """Returns all links in the graphs, sorted."""
    return tuple(
        sorted(
            Link(w.graph.name, before, after, w.graph.tasks[after].for_each is not None)
            for w in workloads
            for before, after in followers(w.graph).items()
        )
    )


def together(found: Sequence[Configuration], bins: Sequence[Sequence[int]], known: Iterable[Link]) -> list[list[int]]:
    """Repacks a pool into the same number of slices so that linked tasks share a slice where possible.

    It is greedy: links are tried in order of the space their tasks take, least first, and a link is kept if everything
    still fits together with the links kept before.

    Args:
        found: Configurations that share slices of the pool, each task once.
        bins: Indices of the configurations in each slice.
        known: Links between tasks.
    """
    groups = [[i] for i in range(len(found))]
    for one, other in _pairs(found, known):
        first, second = (next(group for group in groups if i in group) for i in (one, other))
        merged = [*(group for group in groups if group not in (first, second)), [*first, *second]]
        parts = [_taken([found[i] for i in group]) for group in merged]
        if max(parts[-1]) <= 1 + FLOAT_ERROR and (inside := packed(parts, len(bins))):
            groups = merged
            bins = [[i for number in numbers for i in merged[number]] for numbers in inside]
    return [sorted(indices) for indices in bins]


def called_with_ms(inside: Sequence[Configuration], known: Iterable[Link]) -> list[float]:
    """Returns, for each configuration in a slice, the total turn of the others that are called together with it."""
    group = {i: {i} for i in range(len(inside))}
    for one, other in _pairs(inside, known):
        joined = group[one] | group[other]
        group |= dict.fromkeys(joined, joined)
    return [sum(inside[other].turn.ms for other in sorted(group[i] - {i})) for i in range(len(inside))]


def _pairs(found: Sequence[Configuration], known: Iterable[Link]) -> list[tuple[int, int]]:
    """Returns the pairs of linked configurations by index, those that take the least of a slice together first."""
    at = {(c.graph, c.task): i for i, c in enumerate(found)}
    pairs = []
    for link in known:
        one, other = at.get((link.graph, link.before)), at.get((link.graph, link.after))
        if one is not None and other is not None and not (link.rows and found[one].batch != found[other].batch):
            pairs.append((max(_taken([found[one], found[other]])), one, other))
    return [(one, other) for _, one, other in sorted(pairs)]


def _taken(inside: Iterable[Configuration]) -> Part:
    """Returns the shares of a slice that these configurations take together."""
    turns = [c.turn for c in inside]
    return sum(t.cycle for t in turns), sum(t.load for t in turns), sum(t.memory for t in turns)
