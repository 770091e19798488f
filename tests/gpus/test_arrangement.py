import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.arrangement import SliceRequest, arrange, parse_slice_request
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.layouts import fits, maximal_layouts
from jigsaw_triton.gpus.model import Board, Placement

A100, A30 = CATALOG["A100-80GB"], CATALOG["A30-24GB"]


@pytest.mark.parametrize(
    ("board", "text", "found"),
    [
        ("A100-80GB", "3g@4", ("3g", 4)),
        ("A100-80GB", " 1gx2 ", ("1gx2", None)),
        ("A100-80GB", "1g+me@6", ("1g+me", 6)),
        ("A100-80GB", "1g.10gb", ("1g", None)),
        ("A100-40GB", "1g.10gb", ("1gx2", None)),
        ("A100-80GB", "1g.10gb+me", ("1g+me", None)),
        ("B200-180GB", "1g.24gb", ("1g", None)),
        ("H100-94GB", "4g.47gb", ("4g", None)),
        ("GH200-96GB", "1g.12gb", ("1g", None)),
        ("A30-24GB", "2g.12gb+me", ("2g+me", None)),
    ],
)
def test_a_slice_request_is_parsed(board: str, text: str, found: SliceRequest) -> None:
    assert parse_slice_request(text, CATALOG[board]) == found


@pytest.mark.parametrize("text", ["", "3g@", "3g@x", "9g", "5g.40gb", "1g.5gb", "1c.3g.40gb", "1g.0gb", "2g+me", "all"])
def test_an_unknown_slice_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(InputError, match="A100-80GB has no slice") as caught:
        parse_slice_request(text, A100, where="file:3")
    assert caught.value.where == "file:3"
    assert "1gx2 (1g.20gb)" in caught.value.hint


@pytest.mark.parametrize("board", [A100, A30], ids=lambda board: board.name)
def test_the_multiset_of_every_maximal_layout_can_be_arranged(board: Board) -> None:
    for layout in maximal_layouts(board):
        found = arrange(board, [(place.slice, None) for place in layout])
        assert found is not None
        assert sorted(p.slice for p in found) == sorted(p.slice for p in layout)
        assert fits(board, found) is None
        assert arrange(board, [(place.slice, None) for place in layout], present=layout) == layout


def test_present_placements_stay_where_possible() -> None:
    present = (Placement(1, "1g"), Placement(3, "1g"), Placement(6, "1g"))
    requests: list[SliceRequest] = [("1g", None), ("1g", None), ("3g", None)]
    assert arrange(A100, requests, present=present) == (*present[:2], Placement(4, "3g"))
    assert arrange(A100, [("1g", None), ("4g", None)], present=present) == (Placement(0, "4g"), Placement(6, "1g"))


def test_a_requested_start_is_kept() -> None:
    assert arrange(A100, [("1g", None), ("3g", 0), ("1g", None)]) == (
        Placement(0, "3g"),
        Placement(5, "1g"),
        Placement(6, "1g"),
    )
    assert arrange(A100, [("3g", 2)]) is None


def test_slices_are_arranged_around_existing_placements() -> None:
    assert arrange(A100, [("3g", None)], around=(Placement(1, "1g"),)) == (Placement(4, "3g"),)
    assert arrange(A100, [("3g", None)] * 2, around=(Placement(1, "1g"),)) is None


@given(st.lists(st.sampled_from(["1g", "1gx2", "2g", "3g", "4g", "7g", "1g+me"]), max_size=8))
def test_an_arrangement_exists_exactly_if_some_layout_contains_it(kinds: list[str]) -> None:
    found = arrange(A100, [(kind, None) for kind in kinds])
    plain = sorted(kind.removesuffix("+me") for kind in kinds)
    possible = kinds.count("1g+me") <= 1 and any(
        all(plain.count(kind) <= [p.slice for p in layout].count(kind) for kind in set(plain))
        for layout in maximal_layouts(A100)
    )
    assert (found is not None) == (possible or not kinds)
    assert found is None or fits(A100, found) is None
