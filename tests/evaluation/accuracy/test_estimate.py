import numpy as np
import pytest

from jigsaw_triton.evaluation.accuracy.estimate import estimate, wilson
from jigsaw_triton.evaluation.accuracy.metrics import Score


def test_requests_that_are_right_or_wrong_have_wilsons_interval() -> None:
    found = estimate([Score(1, 1)] * 90 + [Score(0, 1)] * 10)
    assert (found.value, found.n) == (0.9, 100)
    # The interval of 90 of 100 in Agresti and Coull (1998) and in statsmodels.
    assert (found.low, found.high) == pytest.approx((0.8256, 0.9448), abs=1e-4)


def test_requests_without_a_mistake_do_not_prove_that_there_are_none() -> None:
    found = estimate([Score(5, 5)] * 10)
    assert found.value == found.high == 1.0
    assert found.low == pytest.approx(wilson(1.0, 10)[0])
    assert found.low < 0.75


def test_rows_of_a_request_count_together() -> None:
    """Ten requests of 100 rows, each all right or all wrong, say no more than ten requests of one row."""
    found = estimate([Score(100.0 * (i % 2), 100) for i in range(10)])
    assert found.value == 0.5
    assert found.high - found.low > 0.4


@pytest.mark.slow
def test_resampled_intervals_cover_the_truth() -> None:
    """Rows are right with a share that differs between requests, with mean 0.8."""
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(200):
        rows = rng.integers(5, 40, 80)
        points = rng.binomial(rows, rng.beta(8, 2, 80))
        found = estimate([Score(p, n) for p, n in zip(points, rows, strict=True)])
        covered += found.low <= 0.8 <= found.high
    assert 0.9 <= covered / 200 <= 0.99


def test_the_interval_contains_a_negative_share() -> None:
    found = estimate([Score(-1, 1), Score(-1, 1)])
    assert found.low <= found.value == -1 <= found.high


def test_nothing_to_count_is_an_error() -> None:
    with pytest.raises(ValueError, match="no request has anything to count"):
        estimate([Score(0, 0)])
