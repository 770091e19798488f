import numpy as np
import pytest

from jigsaw_triton.evaluation.simulator.arrivals import Array, poisson


def counts_per_second(arrivals_s: Array) -> Array:
    return np.bincount(arrivals_s.astype(int))[:-1].astype(float)


def test_the_variance_of_poisson_counts_equals_their_mean() -> None:
    counts = counts_per_second(poisson(50, 200_000, np.random.default_rng(1)))
    assert counts.mean() == pytest.approx(50, rel=0.02)
    assert counts.var() == pytest.approx(50, rel=0.1)


def test_equal_seeds_give_equal_ascending_times() -> None:
    first, second = (poisson(30.0, 5000, np.random.default_rng(7)) for _ in range(2))
    assert len(first) == 5000
    assert (first == second).all()
    assert (np.diff(first) >= 0).all()
    assert first[0] >= 0
