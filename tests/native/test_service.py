"""Service times: the expected time of a batch, from the profile and from measurements."""

import pytest

from tests.native.parts import ServiceTimes


def test_without_profile_and_measurements_the_estimate_is_zero() -> None:
    assert ServiceTimes({}).mean(1) == ServiceTimes({}).high(4) == 0


@pytest.mark.parametrize(
    ("items", "expected_ms"), [(1, 10.0), (2, 20.0), (3, 30.0), (4, 40.0), (6, 50.0), (8, 60.0), (16, 120.0)]
)
def test_the_profile_is_interpolated_and_extrapolated(items: int, expected_ms: float) -> None:
    times = ServiceTimes({2: 20.0, 4: 40.0, 8: 60.0})
    assert times.mean(items) == pytest.approx(20.0 if items == 1 else expected_ms)


def test_measurements_replace_the_profile() -> None:
    times = ServiceTimes({1: 10.0, 8: 40.0})
    for _ in range(200):
        times.add(1, 20.0)
    assert times.mean(1) == pytest.approx(20.0, rel=0.05)
    assert times.high(1) >= times.mean(1)
    # The profile of other sizes is scaled by the measured ratio.
    assert times.mean(8) == pytest.approx(80.0, rel=0.1)


def test_without_a_profile_other_sizes_give_the_estimate() -> None:
    times = ServiceTimes({})
    for _ in range(50):
        times.add(4, 8.0)
    assert times.mean(4) == pytest.approx(8.0)
    assert times.mean(16) == pytest.approx(32.0)
    assert times.mean(1) == pytest.approx(8.0)


def test_one_slow_batch_is_soon_forgotten() -> None:
    times = ServiceTimes({1: 10.0})
    times.add(1, 5000.0)
    for _ in range(60):
        times.add(1, 10.0)
    assert times.mean(1) < 30


def test_two_slow_batches_after_a_load_do_not_outweigh_the_profile() -> None:
    times = ServiceTimes({1: 50.0})
    times.add(1, 300.0)
    times.add(1, 300.0)
    assert times.mean(1) < 150
    assert times.high(1) < 300


def test_the_high_estimate_grows_with_the_variation() -> None:
    steady, varying = ServiceTimes({}), ServiceTimes({})
    for turn in range(200):
        steady.add(1, 10.0)
        varying.add(1, 5.0 if turn % 2 else 15.0)
    assert steady.mean(1) == pytest.approx(varying.mean(1), rel=0.2)
    assert varying.high(1) > steady.high(1)


@pytest.mark.parametrize("items", [0, -5, 1 << 20, 1 << 40, (1 << 63) - 1])
def test_any_batch_size_has_an_estimate(items: int) -> None:
    times = ServiceTimes({1: 1.0})
    times.add(items, 3.0)
    assert times.mean(items) > 0
