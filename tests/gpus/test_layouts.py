import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.gpus.catalog import CATALOG, board
from jigsaw_triton.gpus.layouts import (
    fits,
    maximal_layouts,
    maximal_multisets,
    multiset,
    occupied,
)
from jigsaw_triton.gpus.model import SLICES, Board, Cluster, Gpu, GpuId, Layout, Placement

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT.parent / "shared" / "reference" / "mig_profiles.yaml"
BASIC = tuple(kind for kind in SLICES if kind != "1gx2")
SEVEN_SLICED = [name for name in CATALOG if name != "A30-24GB"]


def layout(*texts: str) -> Layout:
    """Builds a layout from texts such as `3g@0`."""
    parts = [text.split("@") for text in texts]
    return tuple(Placement(int(start), kind) for kind, start in parts)


def every_placement(item: Board) -> list[Placement]:
    plain = [Placement(start, kind) for kind, p in item.profiles.items() for start in p.starts]
    media = [Placement(start, f"{kind}+me") for kind, p in item.media_profiles.items() for start in p.starts]
    return sorted([*plain, *media])


@pytest.mark.parametrize("name", SEVEN_SLICED)
def test_boards_with_seven_slices_have_the_known_numbers_of_layouts(name: str) -> None:
    assert len(maximal_layouts(board(name), BASIC)) == 19
    assert len(maximal_multisets(board(name), BASIC)) == 14
    assert len(maximal_layouts(board(name))) == 78
    assert len(maximal_multisets(board(name))) == 38


def test_a_board_with_four_slices_has_the_known_numbers_of_layouts() -> None:
    a30 = board("A30-24GB")
    assert len(maximal_layouts(a30)) == 5
    assert len(maximal_multisets(a30)) == 4


@pytest.mark.parametrize("item", CATALOG.values(), ids=CATALOG)
def test_maximal_layouts_cannot_be_extended_and_none_is_missing(item: Board) -> None:
    plain = [p for p in every_placement(item) if not p.slice.endswith("+me")]
    found = maximal_layouts(item)
    assert len(set(found)) == len(found)
    for one in found:
        assert list(one) == sorted(one)
        assert fits(item, one) is None
        assert all(fits(item, (*one, place)) is not None for place in plain)
    for pair in itertools.combinations(plain, 2):
        if fits(item, pair) is None:
            assert any(set(pair) <= set(one) for one in found), pair


@pytest.mark.parametrize("item", CATALOG.values(), ids=CATALOG)
def test_each_multiset_has_a_layout_of_its_slices(item: Board) -> None:
    found = maximal_multisets(item)
    assert set(found) == {multiset(one) for one in maximal_layouts(item)}
    for kinds, one in found.items():
        assert Counter(kinds) == Counter(p.slice for p in one)
        assert one in maximal_layouts(item)


def test_only_the_given_slice_kinds_are_used() -> None:
    assert maximal_layouts(board("A100-80GB"), ["3g"]) == (layout("3g@0", "3g@4"),)
    assert maximal_layouts(board("A30-24GB"), ["3g"]) == ()


@pytest.mark.parametrize("name", ["A100-80GB", "A30-24GB"])
@given(data=st.data())
def test_layouts_around_placements_are_the_rest_of_layouts_that_contain_them(name: str, data: st.DataObject) -> None:
    item = board(name)
    every = maximal_layouts(item)
    whole = data.draw(st.sampled_from(every))
    around = tuple(place for place in whole if data.draw(st.booleans()))
    besides = {tuple(p for p in one if p not in around) for one in every if set(around) <= set(one)}
    assert set(maximal_layouts(item, around=around)) == besides - {()}
    assert set(maximal_multisets(item, around=around)) == {multiset(one) for one in besides - {()}}


def test_layouts_around_a_media_exclusive_instance_are_those_around_a_plain_one() -> None:
    a100 = board("A100-80GB")
    assert maximal_layouts(a100, ["3g", "1g"], layout("1g+me@1")) == maximal_layouts(a100, ["3g", "1g"], layout("1g@1"))


def test_compute_slices_exclude_those_of_others() -> None:
    gpu = Gpu(GpuId("a", 0), board("A100-80GB"))
    assert gpu.compute_slices == 7
    assert replace(gpu, foreign=layout("2g@0", "1g+me@2")).compute_slices == 4
    assert Cluster((gpu, replace(gpu, foreign=layout("7g@0")))).compute_slices == 7


@pytest.mark.parametrize(
    ("name", "placements", "reason"),
    [
        ("A100-80GB", ["3g@0", "1g@3"], "1g@3 overlaps 3g@0"),
        ("A100-80GB", ["1g@3", "3g@0"], "3g@0 overlaps 1g@3"),
        ("A100-80GB", ["1g@2", "1g@2"], "1g@2 overlaps 1g@2"),
        ("A100-80GB", ["7g@0", "1g@6"], "1g@6 overlaps 7g@0"),
        ("A100-80GB", ["4g@4"], "4g of A100-80GB cannot start at 4 (only at 0)"),
        ("A100-80GB", ["1g@0"] * 2, "1g@0 overlaps 1g@0"),
        ("A100-80GB", ["1g@7"], "1g of A100-80GB cannot start at 7 (only at 0, 1, 2, 3, 4, 5, 6)"),
        ("A100-80GB", ["2g@6"], "2g of A100-80GB cannot start at 6 (only at 0, 2, 4)"),
        ("A100-80GB", ["5g@0"], "A100-80GB has no slice 5g (it has 1g, 1gx2, 2g, 3g, 4g, 7g)"),
        ("A30-24GB", ["3g@0"], "A30-24GB has no slice 3g (it has 1g, 2g, 4g)"),
        ("A100-80GB", ["2g+me@0"], "A100-80GB has no slice 2g+me (it has 1g, 1gx2, 2g, 3g, 4g, 7g)"),
        ("A100-80GB", ["1g+me@0", "1g+me@1"], "A100-80GB holds at most 1 of 1g+me"),
        (
            "A30-24GB",
            ["1g+me@0", "2g+me@2"],
            "2g+me@2 cannot have the media engines, which 1g+me@0 already uses",
        ),
        ("cpu", ["1g+me@0"], "cpu has no slice 1g+me (it has 1g, 1gx2, 2g, 3g, 4g, 7g)"),
    ],
)
def test_the_reason_why_placements_do_not_fit_is_given(name: str, placements: list[str], reason: str) -> None:
    assert fits(board(name), layout(*placements)) == reason


@pytest.mark.parametrize(
    "placements",
    [
        [],
        ["3g@0", "3g@4"],
        ["1g@0", "1g@1", "1g@2", "1g@3", "3g@4"],
        ["1gx2@0", "1gx2@2", "1gx2@4", "1gx2@6"],
        ["1g+me@0", "1g@1", "1g@2", "1g@3", "1g@4", "1g@5", "1g@6"],
    ],
)
def test_valid_placements_fit(placements: list[str]) -> None:
    assert fits(board("A100-80GB"), layout(*placements)) is None


def test_two_badly_placed_small_slices_leave_no_room_for_large_ones() -> None:
    a100, scattered = board("A100-80GB"), layout("1g@2", "1g@4")
    large = [p for p in every_placement(a100) if p.slice in ("3g", "4g", "7g")]
    assert all(fits(a100, (*scattered, place)) is not None for place in large)


@given(st.data())
def test_the_order_of_placements_does_not_matter(data: st.DataObject) -> None:
    item = CATALOG[data.draw(st.sampled_from(sorted(CATALOG)))]
    some = data.draw(st.lists(st.sampled_from(every_placement(item)), max_size=8))
    shuffled = data.draw(st.permutations(some))
    assert (fits(item, some) is None) == (fits(item, shuffled) is None)


@given(st.data())
def test_fitting_placements_stay_within_the_memory_and_compute_slices(data: st.DataObject) -> None:
    item = CATALOG[data.draw(st.sampled_from(sorted(CATALOG)))]
    some: list[Placement] = []
    for place in data.draw(st.permutations(every_placement(item))):
        if fits(item, [*some, place]) is None:
            some.append(place)
    profiles = [item.profile(p.slice) for p in some]
    known = [p for p in profiles if p is not None]
    assert len(known) == len(some)
    taken = [i for profile, place in zip(known, some, strict=True) for i in occupied(profile, place)]
    assert len(taken) == len(set(taken)) <= item.memory_slices
    assert sum(p.compute_slices for p in known) <= item.compute_slices
    assert sum(p.media_exclusive for p in known) <= 1


@pytest.mark.skipif(
    not REFERENCE.exists(), reason="the table of collected nvidia-smi output is not beside the checkout"
)
def test_maximal_layouts_match_the_collected_table() -> None:
    for name, expected in yaml.safe_load(REFERENCE.read_text())["gpus"].items():
        names = {kind: profile.name for kind, profile in board(name).profiles.items()}
        ours = {tuple(f"{names[p.slice]}@{p.start}" for p in one) for one in maximal_layouts(board(name), BASIC)}
        assert ours == {tuple(one) for one in expected["maximal_layouts_basic"]}
        counts = expected["counts"]
        assert len(maximal_layouts(board(name))) == counts["maximal_layouts_with_double_memory"]
        assert len(maximal_multisets(board(name))) == counts["maximal_multisets_with_double_memory"]
