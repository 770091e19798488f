"""Packing of parts into slices."""

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.planner.candidates.packing import EFFORT, Part, packed


def fits(parts: Sequence[Part], bins: Sequence[Sequence[int]]) -> bool:
    return sorted(i for inside in bins for i in inside) == list(range(len(parts))) and all(
        sum(parts[i][d] for i in inside) <= 1 + 1e-6 for inside in bins for d in range(3)
    )


def by_trying_all(parts: Sequence[Part], slices: int) -> bool:
    used = [[0.0, 0.0, 0.0] for _ in range(slices)]

    def place(at: int) -> bool:
        if at == len(parts):
            return True
        for bin_ in used:
            if all(bin_[d] + parts[at][d] <= 1 + 1e-9 for d in range(3)):
                for d in range(3):
                    bin_[d] += parts[at][d]
                if place(at + 1):
                    return True
                for d in range(3):
                    bin_[d] -= parts[at][d]
        return False

    return place(0)


part = st.integers(0, 10).map(lambda n: n / 10)


@pytest.mark.slow
@given(st.lists(st.tuples(part, part, part), min_size=1, max_size=7), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_packing_agrees_with_exhaustive_search(parts: list[Part], slices: int) -> None:
    found = packed(parts, slices)
    assert found is not None
    assert bool(found) == by_trying_all(parts, slices)
    assert not found or (len(found) <= slices and fits(parts, found))


def test_packing_gives_up_after_its_effort() -> None:
    rng = random.Random(1)
    parts = [(rng.uniform(0.1, 0.5), 0.0, 0.0) for _ in range(60)]
    tight = math.ceil(sum(p[0] for p in parts))
    assert packed(parts, tight, effort=10) is None
    roomy = packed(parts, tight + 2, effort=EFFORT)
    assert roomy and fits(parts, roomy)
