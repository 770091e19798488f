from collections.abc import Callable

import numpy as np
import pytest

from jigsaw_triton.evaluation.simulator.arrivals import Array, bursty, poisson


def counts_per_second(arrivals_s: Array) -> Array:
    return np.bincount(arrivals_s.astype(int))[:-1].astype(float)


def test_the_variance_of_poisson_counts_equals_their_mean() -> None:
    counts = counts_per_second(poisson(50, 200_000, np.random.default_rng(1)))
    assert counts.mean() == pytest.approx(50, rel=0.02)
    assert counts.var() == pytest.approx(50, rel=0.1)


def test_bursts_keep_the_mean_and_increase_the_variance() -> None:
    counts = counts_per_second(bursty(50, 400_000, np.random.default_rng(1)))
    assert counts.mean() == pytest.approx(50, rel=0.05)
    assert counts.var() > 10 * 50


def test_bursts_have_their_rate_and_share_of_time() -> None:
    arrivals_s = bursty(100, 400_000, np.random.default_rng(2), peak=5.0, share=0.1, burst_s=20.0)
    counts = counts_per_second(arrivals_s)
    in_burst = counts > 250
    assert in_burst.mean() == pytest.approx(0.1, rel=0.3)
    assert np.median(counts[in_burst]) == pytest.approx(500, rel=0.05)


@pytest.mark.parametrize("stream", [poisson, bursty])
def test_equal_seeds_give_equal_ascending_times(stream: Callable[..., Array]) -> None:
    first, second = (stream(30.0, 5000, np.random.default_rng(7)) for _ in range(2))
    assert len(first) == 5000
    assert (first == second).all()
    assert (np.diff(first) >= 0).all()
    assert first[0] >= 0
