import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.evaluation.launching import Cost

seconds = st.floats(1e-6, 1.0)
ROWS = [(batch, sm) for batch in (1, 4, 16) for sm in (14, 28, 98)]


def test_an_instance_alone_launches_and_then_computes() -> None:
    assert Cost(launch_s=0.004, item_s=0.032).batch_s(8, 1, 16) == pytest.approx(0.004 + 8 * 0.032 / 16)


def test_instances_that_mostly_launch_do_not_delay_each_other() -> None:
    taken = Cost(launch_s=1.0, item_s=1e-6)
    assert taken.batch_s(1, 4, 1) == pytest.approx(taken.batch_s(1, 1, 1), rel=1e-4)


def test_instances_that_mostly_compute_share_the_slice() -> None:
    taken = Cost(launch_s=1e-6, item_s=1.0)
    assert taken.batch_s(1, 4, 1) == pytest.approx(4 * taken.batch_s(1, 1, 1), rel=1e-4)


def test_more_instances_serve_more_but_not_more_than_the_slice_computes() -> None:
    taken = Cost(launch_s=0.01, item_s=0.01)
    rates = [n / taken.batch_s(1, n, 1) for n in range(1, 9)]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(50.0) and rates[-1] < 100.0


@given(launch_s=seconds, item_s=seconds)
def test_a_cost_is_fitted_from_its_own_times(launch_s: float, item_s: float) -> None:
    cost = Cost(launch_s, item_s)
    fitted = Cost.fitted([(batch / sm, cost.batch_s(batch, 1, sm)) for batch, sm in ROWS])
    for batch, sm in ROWS:
        assert fitted.batch_s(batch, 1, sm) == pytest.approx(cost.batch_s(batch, 1, sm), rel=1e-3)


def test_one_wrong_row_does_not_change_the_fit() -> None:
    cost = Cost(0.01, 0.1)
    rows = [(batch / sm, cost.batch_s(batch, 1, sm)) for batch, sm in ROWS]
    fitted = Cost.fitted([*rows[:-1], (rows[-1][0], 3 * rows[-1][1])])
    assert (fitted.launch_s, fitted.item_s) == pytest.approx((0.01, 0.1), rel=0.01)


@given(rows=st.lists(st.tuples(st.floats(0.01, 10.0), seconds), min_size=1, max_size=6))
def test_a_fitted_cost_is_never_negative(rows: list[tuple[float, float]]) -> None:
    fitted = Cost.fitted(rows)
    assert fitted.launch_s >= 0 and fitted.item_s >= 0
    assert fitted.batch_s(1, 2, 1) > 0
