from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.profiles.service import FIXED_SHARE, ServiceTime, service_time, service_times
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.problems import row


def test_the_factor_has_the_percentiles_of_the_profile() -> None:
    time = ServiceTime((1,), (10.0,), p95=1.5, p99=2.5)
    factors = time.factors(np.random.default_rng(1).standard_normal(400_000))
    assert np.quantile(factors, [0.5, 0.95, 0.99]) == pytest.approx([1.0, 1.5, 2.5], rel=0.02)
    assert factors.mean() == pytest.approx(time.mean, rel=0.01)
    assert factors.var() / factors.mean() ** 2 == pytest.approx(time.variation, rel=0.05)


@pytest.mark.parametrize(("p95", "p99"), [(1.0, 1.0), (1.5, 2.5), (2.0, 200.0), (5000.0, 6000.0), (1.0, 1e6)])
def test_the_moments_are_exact_for_near_and_distant_percentiles(p95: float, p99: float) -> None:
    time = ServiceTime((1,), (10.0,), p95, p99)
    factors = time.factors(np.array([NormalDist().inv_cdf((i + 0.5) / 20_000) for i in range(20_000)]))
    assert time.mean == pytest.approx(factors.mean(), rel=2e-3)
    assert time.variation == pytest.approx(factors.var() / factors.mean() ** 2, rel=2e-3, abs=1e-12)


def test_a_quantile_of_a_full_batch_uses_the_quantile_of_the_factor() -> None:
    time = ServiceTime((1, 4), (10.0, 20.0), p95=1.5, p99=2.5)
    assert [time.full_ms(q) for q in (0.5, 0.95, 0.99)] == pytest.approx([20.0, 30.0, 50.0])


def test_the_factor_is_constant_beyond_the_last_thousandth() -> None:
    time = ServiceTime((1,), (10.0,), p95=1.5, p99=2.5)
    assert time.factors(np.array([8.0])) == time.factors(np.array([3.1]))


def test_medians_of_partial_batches_are_interpolated() -> None:
    time = ServiceTime((2, 6), (10.0, 30.0), p95=1.0, p99=1.0)
    assert time.medians_ms == pytest.approx([10 * FIXED_SHARE, 7.5, 10.0, 15.0, 20.0, 25.0, 30.0])


def test_a_smaller_batch_takes_no_longer_than_a_larger_one() -> None:
    rows = [row("t", "v", batch=b, p95_ms=ms) for b, ms in ((1, 12.5), (2, 25.0), (4, 20.0), (8, 40.0))]
    time = service_time(rows[2], rows)
    assert time.sizes == (1, 2, 4)
    assert time.median_ms == pytest.approx((10.0, 16.0, 16.0))


def test_an_instance_rests_if_the_throughput_is_lower_than_the_latencies_allow() -> None:
    slow = service_time(row("t", "v", batch=4, instances=2, p95_ms=10, rps=400))
    assert slow.occupied_ms == pytest.approx(20.0)
    assert service_time(row("t", "v", batch=4, instances=2, p95_ms=10, rps=1e6)).rest == 0


def test_smaller_batches_are_taken_from_rows_with_equal_slice_and_instances() -> None:
    table = ProfileTable(
        [
            row("t", "v", batch=8, p95_ms=40),
            row("t", "v", batch=2, p95_ms=15),
            row("t", "v", batch=2, instances=2, p95_ms=25),
            row("t", "v", batch=1, slice_="2g", p95_ms=5),
            row("t", "w", batch=1, p95_ms=5),
            row("t", "v", batch=4, rps=0.0),
        ]
    )
    times = service_times(table)
    assert {(k.variant, k.slice, k.instances, k.batch): t.sizes for k, t in times.items()} == {
        ("v", "1g", 1, 2): (2,),
        ("v", "1g", 1, 8): (2, 4, 8),
        ("v", "1g", 2, 2): (2,),
        ("v", "2g", 1, 1): (1,),
        ("w", "1g", 1, 1): (1,),
    }


@given(st.floats(1.0, 5.0), st.floats(1.0, 5.0))
def test_factors_rise_with_the_deviate(p95: float, more: float) -> None:
    factors = ServiceTime((1,), (1.0,), p95, p95 * more).factors(np.linspace(-4, 4, 100))
    assert (np.diff(factors) >= 0).all()
    assert (factors > 0).all()
