"""Tests of Pareto fronts against a comparison of every pair of points."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.planner.latency.pareto import ParetoFilter

# Few distinct values, so that many points tie; some latencies are infinite.
POINTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 5), st.sampled_from([1.0, 2.0, 3.5, 7.0, math.inf]), st.floats(0, 8)),
    min_size=1,
    max_size=20,
)


@given(points=POINTS)
def test_the_front_has_exactly_the_undominated_points(points: list[tuple[int, int, float, float]]) -> None:
    place, rps, ms, _ = (np.array(column) for column in zip(*points, strict=True))
    found = ParetoFilter(place, rps).front(ms).tolist()
    for i, (p, r, m, _) in enumerate(points):
        better = (
            (r2 >= r and m2 <= m and ((r2, m2) != (r, m) or j < i))
            for j, (p2, r2, m2, _) in enumerate(points)
            if p2 == p and j != i
        )
        assert found[i] == (math.isfinite(m) and not any(better))


@given(points=POINTS)
def test_a_point_counts_as_dominated_only_if_it_is_so_at_its_bound(points: list[tuple[int, int, float, float]]) -> None:
    place, rps, ms, below = (np.array(column) for column in zip(*points, strict=True))
    bound = np.where(np.isfinite(ms), np.minimum(ms, below), below)
    found = ParetoFilter(place, rps).dominated(bound, ms).tolist()
    for i, (p, r, _, _) in enumerate(points):
        if found[i]:
            assert any(p2 == p and r2 >= r and m2 <= bound[i] for p2, r2, m2, _ in points)
        else:
            assert not any(p2 == p and r2 > r and m2 <= bound[i] for p2, r2, m2, _ in points)


def test_a_point_with_an_infinite_bound_is_dominated() -> None:
    assert ParetoFilter(np.array([0]), np.array([1.0])).dominated(np.array([math.inf]), np.array([math.inf])).all()
