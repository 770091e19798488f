import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.controller.core.arrivals import arrived
from jigsaw_triton.controller.core.counters import counted_since
from jigsaw_triton.controller.core.demand import Demand, Sample
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.servers.metrics import parse_metrics

FIGURES = Settings(learning_s=0.0)

METRICS = """
# HELP jigsaw_arrivals_total Requests that came to a graph
jigsaw_arrivals_total{graph="app"} 43
jigsaw_arrivals_total{graph="other"} 7
jigsaw_requests_total{graph="app",task="t0"} 40
jigsaw_refused_total{graph="app",reason="late",task="t0"} 3
jigsaw_refused_total{graph="app",reason="late",task=""} 8
"""


def demand(rates_rps: list[float]) -> Demand:
    result = Demand()
    for second, rate in enumerate(rates_rps):
        result = result.with_sample(Sample(float(second), rate), FIGURES)
    return result


def test_arrivals_include_requests_that_a_pipeline_refuses_before_any_front() -> None:
    assert arrived(parse_metrics(METRICS)) == {"app": 51.0, "other": 7.0}


def test_arrivals_are_right_after_a_gateway_restart_and_for_a_new_graph() -> None:
    before = {"app": 40.0}
    assert counted_since(before, {"app": 45.0, "other": 3.0}) == {"app": 5.0, "other": 3.0}
    assert counted_since(before, {"app": 3.0}) == {"app": 3.0}
    assert counted_since(before, {"app": 40.0}) == {"app": 0.0}


def test_one_burst_is_not_a_rise() -> None:
    assert demand([10, 10, 10, 10, 10, 60]).risen(FIGURES, covered_rps=10) is None


def test_a_rise_is_planned_for_at_the_level_that_it_has_reached() -> None:
    expected_rps = 40 * FIGURES.headroom + math.sqrt(40 / 2)
    found_rps = demand([10, 10, 10, 40, 40, 40]).risen(FIGURES, covered_rps=10)
    assert found_rps is not None
    assert expected_rps <= found_rps < expected_rps * FIGURES.demand_step


def test_similar_loads_are_planned_for_alike() -> None:
    found = {demand([10, 10, 10, rate, rate, rate]).risen(FIGURES, covered_rps=10) for rate in (40, 40.1, 40.2, 40.3)}
    assert len(found) <= 2


def test_load_within_the_plans_capacity_is_not_a_rise() -> None:
    assert demand([40.0] * 10).risen(FIGURES, covered_rps=41) is None


def test_too_few_samples_cause_no_change() -> None:
    assert demand([50, 50]).risen(FIGURES, covered_rps=10) is None
    assert demand([1, 1]).fallen(50, 10, FIGURES) is None


def test_a_fall_never_plans_below_the_base_demand() -> None:
    assert demand([0.0] * 61).fallen(10, 10, FIGURES) is None
    assert demand([0.0] * 61).fallen(50, 10, FIGURES) == 10


def test_a_fall_within_the_noise_of_poisson_arrivals_does_not_count() -> None:
    """Windows of 4 s vary by 1.1 requests a second at 5 a second, and by 11 at 500."""
    assert demand([5.0] * 61).fallen(7, 1, FIGURES) is None
    expected_rps = 500 * FIGURES.headroom + math.sqrt(500 / 2)
    assert demand([500.0] * 61).fallen(700, 1, FIGURES) == pytest.approx(expected_rps, rel=FIGURES.demand_step - 1)


@pytest.mark.parametrize("rate_rps", [2.0, 20.0, 200.0, 2000.0])
def test_random_arrivals_at_a_constant_rate_stay_within_what_was_planned_for_them(rate_rps: float) -> None:
    arrivals = np.random.default_rng(1).poisson(rate_rps, 1200).tolist()
    planned_rps = demand(arrivals[:60]).risen(FIGURES, covered_rps=0.0)
    assert planned_rps is not None
    seen = demand(arrivals[:60])
    for second, rate in enumerate(arrivals[60:], 60):
        seen = seen.with_sample(Sample(float(second), rate), FIGURES)
        assert seen.risen(FIGURES, covered_rps=planned_rps) is None
        assert seen.fallen(planned_rps, 0.0, FIGURES) is None


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=90), st.floats(1, 1000))
def test_a_change_moves_towards_the_load_and_then_settles(rates_rps: list[float], planned_rps: float) -> None:
    base_rps = planned_rps / 3
    seen = demand(rates_rps)
    risen = seen.risen(FIGURES, covered_rps=1.5 * planned_rps)
    if risen is not None:
        assert risen > planned_rps
        assert seen.risen(FIGURES, covered_rps=risen) is None
        assert seen.fallen(risen, base_rps, FIGURES) is None
    fallen = seen.fallen(planned_rps, base_rps, FIGURES)
    if fallen is not None:
        assert base_rps <= fallen < planned_rps
        assert seen.risen(FIGURES, covered_rps=fallen) is None
        assert seen.fallen(fallen, base_rps, FIGURES) is None
