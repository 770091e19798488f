"""Tasks that follow each other, in the same shared slice where that takes no more slices.

A worker then does them in one call (`graph.chain`), which saves the way to the gateway and back. What is planned for
them stays true: they take no more cycles of their slice than one by one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from jigsaw_triton.graph.chain import followers
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.candidates.configurations import Configuration

Part = tuple[float, float, float]
"""Of a slice: of its cycle, its load, its memory."""

Pack = Callable[[Sequence[Part], int], list[list[int]] | None]
"""Parts and a number of slices -> the parts in so many slices, by number; nothing where none are found."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """That two tasks may be done in one call.

    Attributes:
        graph: Name.
        before: Task.
        after: Task.
        rows: Whether they are called for rows, which takes batches of one size.
    """

    graph: str
    before: str
    after: str
    rows: bool


def links(workloads: Iterable[Workload]) -> tuple[Link, ...]:
    """All that there are in the graphs, sorted."""
    return tuple(
        sorted(
            Link(w.graph.name, before, after, w.graph.tasks[after].for_each is not None)
            for w in workloads
            for before, after in followers(w.graph).items()
        )
    )


def together(
    found: Sequence[Configuration], bins: Sequence[Sequence[int]], known: Iterable[Link], pack: Pack
) -> list[list[int]]:
    """Slices, as many as before, in which tasks that are linked are together as far as that is found.

    Link by link, those that take the least first: one is kept where all still fits, with those before it.

    Args:
        found: What shares slices of a pool, each task once.
        bins: Slices that hold all of it, by number.
        known: Links between tasks.
        pack: Finds slices that hold parts.
    """
    groups = [[i] for i in range(len(found))]
    for one, other in _pairs(found, known):
        first, second = (next(group for group in groups if i in group) for i in (one, other))
        merged = [*(group for group in groups if group not in (first, second)), [*first, *second]]
        parts = [_taken([found[i] for i in group]) for group in merged]
        if max(parts[-1]) <= 1 + _ROUNDING and (inside := pack(parts, len(bins))):
            groups = merged
            bins = [[i for number in of for i in merged[number]] for of in inside]
    return [sorted(of) for of in bins]


def called_with_ms(inside: Sequence[Configuration], known: Iterable[Link]) -> list[float]:
    """For each of those in a slice how long the turns of the others are that are called at once with it."""
    group = {i: {i} for i in range(len(inside))}
    for one, other in _pairs(inside, known):
        joined = group[one] | group[other]
        group |= dict.fromkeys(joined, joined)
    return [sum(inside[other].turn.ms for other in sorted(group[i] - {i})) for i in range(len(inside))]


def _pairs(found: Sequence[Configuration], known: Iterable[Link]) -> list[tuple[int, int]]:
    """What is linked, by number, those that take the least of a slice together first."""
    at = {(c.graph, c.task): i for i, c in enumerate(found)}
    pairs = []
    for link in known:
        one, other = at.get((link.graph, link.before)), at.get((link.graph, link.after))
        if one is not None and other is not None and not (link.rows and found[one].batch != found[other].batch):
            pairs.append((max(_taken([found[one], found[other]])), one, other))
    return [(one, other) for _, one, other in sorted(pairs)]


def _taken(inside: Iterable[Configuration]) -> Part:
    """By some configurations together."""
    turns = [c.turn for c in inside]
    return sum(t.cycle for t in turns), sum(t.load for t in turns), sum(t.memory for t in turns)
