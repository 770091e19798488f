"""Tasks that follow each other, in one slice: held against all ways to put them into slices."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.candidates.chains import Link, links, together
from jigsaw_triton.planner.candidates.configurations import Configuration, Turn
from jigsaw_triton.planner.candidates.sharing import Part, packed
from tests.fakes.graphs import chain, diamond, fan_out, ref, task


def sharer(name: str, part: Part, *, batch: int = 4) -> Configuration:
    """Of task `<graph>.<task>`, taking so much of a slice's cycle, load and memory."""
    graph, _, of = name.partition(".")
    turn = Turn(100.0, 100.0 * part[0], *part)
    return Configuration(graph, of, "v0", "cpu", "1g", 1, batch, 1, 200.0, 1.0, 0.0, turn=turn)


def ways(items: Sequence[int], slices: int) -> Iterator[list[list[int]]]:
    """All ways to put these into so many slices, or fewer."""
    if not items:
        yield []
        return
    first, *rest = items
    for way in ways(rest, slices):
        for number in range(len(way)):
            yield [[first, *of] if i == number else of for i, of in enumerate(way)]
        if len(way) < slices:
            yield [*way, [first]]


def fits(found: Sequence[Configuration], way: Sequence[Sequence[int]]) -> bool:
    parts = [(c.turn.cycle, c.turn.load, c.turn.memory) for c in found]
    return all(sum(parts[i][d] for i in of) <= 1 + 1e-9 for of in way for d in range(3))


def kept(found: Sequence[Configuration], way: Sequence[Sequence[int]], known: Sequence[Link]) -> set[Link]:
    """The links inside slices."""
    at = {(found[i].graph, found[i].task): number for number, of in enumerate(way) for i in of}
    return {link for link in known if at[link.graph, link.before] == at[link.graph, link.after]}


TENTHS = st.integers(1, 10).map(lambda n: n / 10)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Configuration], list[list[int]], list[Link]]:
    """Two chains in slices that hold them somehow."""
    lengths = [draw(st.integers(1, 4)), draw(st.integers(1, 3))]
    found = [
        sharer(f"g{g}.t{t}", (draw(TENTHS), draw(TENTHS), draw(TENTHS)))
        for g, length in enumerate(lengths)
        for t in range(length)
    ]
    parts = [(c.turn.cycle, c.turn.load, c.turn.memory) for c in found]
    bins = next(of for slices in range(1, len(found) + 1) if (of := packed(parts, slices)))
    known = [Link(f"g{g}", f"t{t}", f"t{t + 1}", False) for g, n in enumerate(lengths) for t in range(n - 1)]
    return found, bins, known


@given(cases())
@settings(max_examples=150, deadline=None)
def test_all_fits_as_many_slices_as_before_and_no_link_more_would(
    case: tuple[list[Configuration], list[list[int]], list[Link]],
) -> None:
    found, bins, known = case
    way = together(found, bins, known, packed)
    assert sorted(i for of in way for i in of) == list(range(len(found)))
    assert len(way) <= len(bins)
    assert fits(found, way)
    inside = kept(found, way, known)
    more = [kept(found, w, known) for w in ways(range(len(found)), len(bins)) if fits(found, w)]
    assert not any(other > inside for other in more)


def test_links_that_take_least_are_kept_first() -> None:
    small, middle, large = (sharer(f"g.t{i}", (part, 0.1, 0.1)) for i, part in enumerate((0.3, 0.4, 0.6)))
    way = together(
        [small, middle, large], [[0], [1, 2]], [Link("g", "t0", "t1", False), Link("g", "t1", "t2", False)], packed
    )
    assert sorted(way) == [[0, 1], [2]]


def test_a_link_to_what_is_not_there_is_none() -> None:
    assert together([sharer("g.a", (0.1, 0.1, 0.1))], [[0]], [Link("g", "a", "b", False)], packed) == [[0]]


def test_rows_go_on_in_batches_of_one_size() -> None:
    other = sharer("x.y", (0.5, 0.1, 0.1))
    for batch, expected in ((4, [[0, 1], [2]]), (8, [[0, 2], [1]])):
        pair = [sharer("g.a", (0.5, 0.1, 0.1)), sharer("g.b", (0.5, 0.1, 0.1), batch=batch)]
        assert sorted(together([*pair, other], [[0, 2], [1]], [Link("g", "a", "b", True)], packed)) == expected


def test_links_are_those_of_the_graphs() -> None:
    more = task("name", {"LABEL": "classify.LABEL"}, for_each="classify.LABEL")
    rows = replace(fan_out(), tasks={**fan_out().tasks, "name": more}, outputs={"NAMES": ref("name.Y")})
    found = links([Workload(graph, 1.0) for graph in (chain(3), diamond(), rows)])
    assert found == (
        Link("chain", "t0", "t1", False),
        Link("chain", "t1", "t2", False),
        Link("fan_out", "classify", "name", True),
    )
