from dataclasses import replace

import numpy as np
import pytest

from jigsaw_triton.controller.core.bursts import Bursts
from jigsaw_triton.controller.core.demand import Demand, Sample
from jigsaw_triton.controller.core.forecast import PEAK_S
from jigsaw_triton.controller.core.settings import Settings

SETTINGS = Settings()


def seen(rates_rps: list[float], base_rps: float = 0.0) -> Demand:
    demand = Demand()
    for second, rate in enumerate(rates_rps):
        demand = demand.with_sample(Sample(float(second), rate), SETTINGS, base_rps=base_rps)
    return demand


def bursting(count: int) -> list[float]:
    """Returns idle minutes with bursts of 20 s at 100 requests a second."""
    return ([0.0] * 100 + [100.0] * 20) * count + [0.0] * 100


def test_bursts_from_idle_times_leave_a_reserve_that_covers_them() -> None:
    demand = seen(bursting(5))
    assert 100 < demand.bursts.reserve_rps(SETTINGS) < 500
    planned_rps = demand.fallen(1000, 0.0, replace(SETTINGS, learning_s=0.0))
    assert planned_rps is not None and planned_rps > 100


def test_a_fall_counts_once_the_load_has_been_seen_for_a_quarter_of_an_hour() -> None:
    assert seen(bursting(5)).fallen(1000, 0.0, SETTINGS) is None
    assert seen(bursting(8)).fallen(1000, 0.0, SETTINGS) is not None


def test_what_was_learned_before_a_deploy_need_not_be_learned_again() -> None:
    demand = seen(bursting(8)).learned()
    for second in range(100):
        demand = demand.with_sample(Sample(float(second), 0.0), SETTINGS)
    assert demand.fallen(1000, 0.0, SETTINGS) is not None


def test_a_reserve_above_the_capacity_is_planned_for_before_the_next_burst() -> None:
    demand = seen(bursting(5))
    assert demand.risen(SETTINGS, covered_rps=50) is not None
    assert demand.risen(SETTINGS, covered_rps=1000) is None


@pytest.mark.parametrize("rate_rps", [2.0, 200.0])
def test_random_arrivals_at_a_constant_rate_leave_no_reserve(rate_rps: float) -> None:
    arrivals = np.random.default_rng(1).poisson(rate_rps, 1200).tolist()
    assert seen(arrivals).bursts.reserve_rps(SETTINGS) == 0


def test_a_load_that_steps_up_every_five_minutes_leaves_no_reserve() -> None:
    assert seen([100.0 + 5 * (second // 300) for second in range(3600)]).bursts.reserve_rps(SETTINGS) == 0


def test_a_single_step_of_the_load_leaves_no_reserve() -> None:
    assert seen([10.0] * 100 + [100.0] * 30 + [10.0] * 100).bursts.reserve_rps(SETTINGS) == 0
    assert seen([10.0] * 100 + [50.0] * 10 + [100.0] * 30).bursts.reserve_rps(SETTINGS) == 0


def test_bursts_that_are_a_small_share_of_the_load_leave_no_reserve() -> None:
    rare = seen(([1000.0] * 280 + [1500.0] * 20) * 4)
    assert rare.bursts.reserve_rps(SETTINGS) > 0
    assert rare.bursts.reserve_rps(replace(SETTINGS, burst_share=0.1)) == 0


def test_the_first_load_of_a_deployment_is_no_burst() -> None:
    assert seen([0.0] * 20 + [100.0] * 300).bursts.reserve_rps(SETTINGS) == 0


def test_bursts_below_the_demand_that_every_plan_covers_leave_no_reserve() -> None:
    assert seen(bursting(5), base_rps=100.0).bursts.reserve_rps(SETTINGS) == 0


def test_a_reserve_falls_as_bursts_stay_away() -> None:
    early = seen(bursting(5)).bursts
    late = early
    for _ in range(720):
        late = late.with_interval(100.0, 100.0, PEAK_S, SETTINGS)
    assert late.reserve_rps(SETTINGS) < 0.5 * early.reserve_rps(SETTINGS)


def test_a_reserve_grows_with_the_size_of_bursts() -> None:
    def reserve_rps(size: float) -> float:
        bursts = Bursts()
        for number in range(100):
            bursts = bursts.with_interval(size if number % 10 == 0 else 0.0, 0.0, PEAK_S, SETTINGS)
        return bursts.reserve_rps(SETTINGS)

    assert reserve_rps(200.0) == pytest.approx(2 * reserve_rps(100.0))
