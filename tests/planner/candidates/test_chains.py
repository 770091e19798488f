"""Tests of moving linked tasks into one slice, against an enumeration of all packings."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.candidates.chains import Link, links, together
from jigsaw_triton.planner.candidates.configurations import Configuration, Turn
from jigsaw_triton.planner.candidates.packing import Part, packed
from tests.fakes.graphs import chain, diamond, fan_out, ref, task


def sharer(name: str, part: Part, *, batch: int = 4) -> Configuration:
    """A configuration of task `<graph>.<task>` that takes these shares of a slice's cycle, load and memory."""
    graph, _, task = name.partition(".")
    turn = Turn(100.0, 100.0 * part[0], *part)
    return Configuration(graph, task, "v0", "cpu", "1g", 1, batch, 1, 200.0, 1.0, 0.0, turn=turn)


def ways(items: Sequence[int], slices: int) -> Iterator[list[list[int]]]:
    """All ways to put these items into at most this many slices."""
    if not items:
        yield []
        return
    first, *rest = items
    for way in ways(rest, slices):
        for number in range(len(way)):
            yield [[first, *items] if i == number else items for i, items in enumerate(way)]
        if len(way) < slices:
            yield [*way, [first]]


def fits(found: Sequence[Configuration], way: Sequence[Sequence[int]]) -> bool:
    parts = [(c.turn.cycle, c.turn.load, c.turn.memory) for c in found]
    return all(sum(parts[i][d] for i in inside) <= 1 + 1e-9 for inside in way for d in range(3))


def kept(found: Sequence[Configuration], way: Sequence[Sequence[int]], known: Sequence[Link]) -> set[Link]:
    """The links whose tasks are in the same slice."""
    at = {(found[i].graph, found[i].task): number for number, inside in enumerate(way) for i in inside}
    return {link for link in known if at[link.graph, link.before] == at[link.graph, link.after]}


TENTHS = st.integers(1, 10).map(lambda n: n / 10)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Configuration], list[list[int]], list[Link]]:
    """Two chains, and slices into which they are packed."""
    lengths = [draw(st.integers(1, 4)), draw(st.integers(1, 3))]
    found = [
        sharer(f"g{g}.t{t}", (draw(TENTHS), draw(TENTHS), draw(TENTHS)))
        for g, length in enumerate(lengths)
        for t in range(length)
    ]
    parts = [(c.turn.cycle, c.turn.load, c.turn.memory) for c in found]
    bins = next(packing for slices in range(1, len(found) + 1) if (packing := packed(parts, slices)))
    known = [Link(f"g{g}", f"t{t}", f"t{t + 1}", False) for g, n in enumerate(lengths) for t in range(n - 1)]
    return found, bins, known


@given(cases())
@settings(max_examples=150, deadline=None)
def test_repacking_needs_no_more_slices_and_no_larger_set_of_links_would_fit(
    case: tuple[list[Configuration], list[list[int]], list[Link]],
) -> None:
    found, bins, known = case
    way = together(found, bins, known)
    assert sorted(i for inside in way for i in inside) == list(range(len(found)))
    assert len(way) <= len(bins)
    assert fits(found, way)
    links_kept = kept(found, way, known)
    more = [kept(found, w, known) for w in ways(range(len(found)), len(bins)) if fits(found, w)]
    assert not any(other > links_kept for other in more)


def test_links_of_the_smallest_tasks_are_kept_first() -> None:
    small, middle, large = (sharer(f"g.t{i}", (part, 0.1, 0.1)) for i, part in enumerate((0.3, 0.4, 0.6)))
    way = together([small, middle, large], [[0], [1, 2]], [Link("g", "t0", "t1", False), Link("g", "t1", "t2", False)])
    assert sorted(way) == [[0, 1], [2]]


def test_a_link_to_an_absent_task_is_ignored() -> None:
    assert together([sharer("g.a", (0.1, 0.1, 0.1))], [[0]], [Link("g", "a", "b", False)]) == [[0]]


def test_tasks_over_rows_are_linked_only_with_equal_batches() -> None:
    other = sharer("x.y", (0.5, 0.1, 0.1))
    for batch, expected in ((4, [[0, 1], [2]]), (8, [[0, 2], [1]])):
        pair = [sharer("g.a", (0.5, 0.1, 0.1)), sharer("g.b", (0.5, 0.1, 0.1), batch=batch)]
        assert sorted(together([*pair, other], [[0, 2], [1]], [Link("g", "a", "b", True)])) == expected


def test_links_follow_from_the_graphs() -> None:
    more = task("name", {"LABEL": "classify.LABEL"}, for_each="classify.LABEL")
    rows = replace(fan_out(), tasks={**fan_out().tasks, "name": more}, outputs={"NAMES": ref("name.Y")})
    found = links([Workload(graph, 1.0) for graph in (chain(3), diamond(), rows)])
    assert found == (
        Link("chain", "t0", "t1", False),
        Link("chain", "t1", "t2", False),
        Link("fan_out", "classify", "name", True),
    )
