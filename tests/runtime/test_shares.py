"""Which variant is in turn."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.runtime.counters import Counters
from jigsaw_triton.runtime.route import RouteEntry
from jigsaw_triton.runtime.shares import Shares

A, B = RouteEntry("w0", "m", 8, 1, "a", 0.75), RouteEntry("w1", "m", 4, 1, "b", 0.25)
FREE = RouteEntry("w2", "m", 8, 1, "c")


@pytest.fixture
def counters(tmp_path: Path) -> Counters:
    return Counters(tmp_path / "counters", 0)


def shares(counters: Counters, *entries: RouteEntry) -> Shares:
    made = Shares(counters)
    made.route(entries)
    return made


def test_without_shares_all_are_in_turn_together(counters: Counters) -> None:
    one = shares(counters, FREE, FREE)
    assert one.in_turn([FREE, FREE], 5) == [[FREE, FREE]]
    one.sent(FREE, 5)
    assert one.in_turn([], 5) == [[]]


def test_the_one_behind_its_share_comes_first_and_the_one_ahead_waits(counters: Counters) -> None:
    one = shares(counters, A, B)
    assert one.in_turn([A, B], 4) == [[A], [B]]
    one.sent(A, 8)
    assert one.in_turn([A, B], 4) == [[B], [A]]
    one.sent(A, 8)
    one.sent(A, 8)
    assert one.in_turn([A, B], 4) == [[B], [A]]
    one.sent(A, 8)
    assert one.in_turn([A, B], 4) == [[B]]
    one.sent(B, 4)
    assert one.in_turn([A, B], 4) == [[B], [A]]


def test_all_entries_of_a_variant_are_one(counters: Counters) -> None:
    other = RouteEntry("w3", "m", 8, 1, "a", 0.75)
    assert shares(counters, A, other, B).in_turn([A, other, B], 4) == [[A, other], [B]]


def test_while_a_variant_is_out_the_others_do_without_and_nothing_is_made_up_for(counters: Counters) -> None:
    one = shares(counters, A, B)
    assert one.in_turn([A, B], 4)
    for _ in range(100):
        assert one.in_turn([A], 8) == [[A]]
        one.sent(A, 8)
    assert one.in_turn([A, B], 4) == [[A], [B]]


def test_a_share_is_of_all_instances_together(tmp_path: Path) -> None:
    instances = [shares(Counters(tmp_path / "counters", number), A, B) for number in range(2)]
    for instance in instances:
        assert instance.in_turn([A, B], 8) == [[A], [B]]
    instances[0].sent(A, 40)
    assert instances[1].in_turn([A, B], 8) == [[B]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.05, 1.0), min_size=2, max_size=5), st.integers(0, 2**32))
def test_shares_hold_in_every_window(tmp_path_factory: pytest.TempPathFactory, weights: list[float], seed: int) -> None:
    """Two instances send what comes to the first in turn that has room, where any may be without."""
    folder, rng = tmp_path_factory.mktemp("shares"), Random(seed)
    wanted = [weight / sum(weights) for weight in weights]
    entries = [RouteEntry(f"w{i}", "m", 8, 1, f"v{i}", share) for i, share in enumerate(wanted)]
    instances = [shares(Counters(folder / "counters", number), *entries) for number in range(2)]
    for instance in instances:
        instance.in_turn(entries, 1)
    sent: list[int] = []
    while len(sent) < 3000:
        instance, items, full = rng.choice(instances), rng.randint(1, 8), rng.choice(entries)
        in_turn = [entry for (entry, *_) in instance.in_turn(entries, items) if entry is not full]
        if in_turn:
            instance.sent(in_turn[0], items)
            sent += [entries.index(in_turn[0])] * items
    for start in range(0, 2000, 250):
        window = sent[start : start + 1000]
        for index, share in enumerate(wanted):
            assert abs(window.count(index) - 1000 * share) <= 2 * 8 * len(entries)
