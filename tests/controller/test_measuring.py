from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.controller.arrivals import Counters, arrivals, counters
from jigsaw_triton.controller.demand import Demand, Sample
from jigsaw_triton.controller.settings import Settings
from jigsaw_triton.servers.metrics import parse_metrics

FIGURES = Settings()

METRICS = """
# HELP nv_inference_request_success Number of successful inference requests
nv_inference_request_success{model="app",version="1"} 30
nv_inference_request_success{model="app.t0.g1",version="1"} 40
nv_inference_request_failure{model="app.t0.g1",reason="OTHER",version="1"} 2
nv_inference_request_failure{model="app.t0.g1",reason="REJECTED",version="1"} 1
nv_inference_request_success{model="app.t0.g2",version="1"} 7
nv_inference_request_success{model="app.t1.g1",version="1"} 31
nv_inference_pending_request_count{model="app.t0.g1",version="1"} 5
nv_inference_pending_request_count{model="app.t1.g1",version="1"} 9
"""


def demand(rates_rps: list[float]) -> Demand:
    result = Demand()
    for second, rate in enumerate(rates_rps):
        result = result.with_sample(Sample(float(second), rate), FIGURES)
    return result


def test_counters_are_those_of_the_first_dispatchers() -> None:
    counted = counters(parse_metrics(METRICS), "app", ["app.t0.g1", "app.t0.g2", "app.t0.g3"])
    assert counted == {"app.t0.g1": Counters(43.0, 5.0), "app.t0.g2": Counters(7.0, 0.0)}


def test_what_a_graphs_pipeline_refuses_has_arrived_too() -> None:
    refused = """
jigsaw_refused_total{graph="app",reason="late",task=""} 8
jigsaw_refused_total{graph="app",reason="late",task="t0"} 3
jigsaw_refused_total{graph="other",reason="late",task=""} 5
"""
    assert counters(parse_metrics(METRICS + refused), "app", ["app.t0.g2"])["app"] == Counters(8.0, 0.0)


def test_arrivals_count_what_waits_and_survive_a_new_generation_and_a_reload() -> None:
    before = {"g1": Counters(40, 5)}
    assert arrivals(before, {"g1": Counters(45, 10)}) == 10
    assert arrivals(before, {"g1": Counters(45, 0), "g2": Counters(3, 2)}) == 5
    assert arrivals(before, {"g1": Counters(3, 5)}) == 3
    assert arrivals(before, {"g2": Counters(3, 0)}) == 3
    assert arrivals(before, {"g1": Counters(40, 0)}) == 0


def test_one_burst_is_no_rise() -> None:
    assert demand([10, 10, 10, 10, 10, 60]).change(10, 10, FIGURES, covered_rps=10) is None


def test_a_rise_is_planned_for_where_it_has_got_to() -> None:
    assert demand([10, 10, 10, 40, 40, 40]).change(10, 10, FIGURES, covered_rps=10) == 40 * FIGURES.headroom


def test_what_the_plan_can_carry_is_no_rise() -> None:
    assert demand([40.0] * 10).change(10, 10, FIGURES, covered_rps=41) is None


def test_too_little_is_known_at_first() -> None:
    assert demand([50, 50]).change(10, 10, FIGURES, covered_rps=10) is None


def test_load_never_plans_below_what_is_always_provided_for() -> None:
    assert demand([0.0] * 61).change(10, 10, FIGURES, covered_rps=10) is None
    assert demand([0.0] * 61).change(50, 10, FIGURES, covered_rps=50) == 10


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=90), st.floats(1, 1000))
def test_a_change_moves_towards_the_load_and_then_rests(rates_rps: list[float], planned_rps: float) -> None:
    base_rps = planned_rps / 3
    seen = demand(rates_rps)
    change = seen.change(planned_rps, base_rps, FIGURES, covered_rps=1.5 * planned_rps)
    if change is not None:
        assert change >= base_rps
        assert change > planned_rps or seen.mean_rps(FIGURES.rise_window_s) <= planned_rps
        assert seen.change(change, base_rps, FIGURES, covered_rps=change) is None
