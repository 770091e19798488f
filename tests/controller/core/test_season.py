from dataclasses import replace

import pytest

from jigsaw_triton.controller.core.demand import Demand, Sample
from jigsaw_triton.controller.core.forecast import ForecastSettings
from jigsaw_triton.controller.core.season import AHEAD_S, BIN_S, BINS, DAY_S, Season
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.persistence.checkpoint import pickled, unpickled

SETTINGS = Settings()
SEASONAL = ForecastSettings("seasonal")
NOON_S = DAY_S / 2


def usual(time_s: float) -> float:
    """Returns a load that is 100 until noon and rises by 100 an hour from then on."""
    return 100.0 + max(0.0, time_s % DAY_S - NOON_S) / 36


def learned(days: int) -> Season:
    season = Season()
    for number in range(days * BINS + 1):
        for part in (0.25, 0.75):
            at_s = (number + part) * BIN_S
            season = season.with_peak(at_s, usual(at_s))
    return season


def test_the_first_day_expects_no_rise() -> None:
    assert Season().rise_rps(NOON_S, 100.0) == 0
    assert learned(0).rise_rps(NOON_S, 100.0) == 0


def test_the_rise_of_the_day_before_is_expected_at_the_same_time() -> None:
    at_s = 5 * DAY_S + NOON_S + 3600
    assert learned(1).rise_rps(at_s, 200.0) == pytest.approx(AHEAD_S / 36)
    assert learned(1).rise_rps(NOON_S - 3600, 100.0) == pytest.approx(0, abs=1e-9)


def test_a_rise_is_smaller_in_proportion_if_the_load_is_lower_than_usual_and_never_larger() -> None:
    at_s = NOON_S + 3600
    assert learned(1).rise_rps(at_s, 100.0) == pytest.approx(AHEAD_S / 36 / 2)
    assert learned(1).rise_rps(at_s, 400.0) == pytest.approx(AHEAD_S / 36)


def test_a_usual_fall_is_no_rise() -> None:
    assert learned(1).rise_rps(DAY_S - 60, 1000.0) == 0


def seasonal(rate_rps: float, at_s: float) -> Demand:
    demand = Demand(season=learned(2), forecast=SEASONAL)
    for second in range(60):
        demand = demand.with_sample(Sample(float(second), rate_rps), SETTINGS, utc_offset_s=at_s - 60)
    return demand


def test_the_seasonal_forecast_plans_ahead_of_a_usual_rise() -> None:
    before_rise, at_night = seasonal(200.0, NOON_S + 3600), seasonal(200.0, NOON_S - 3600)
    assert at_night.risen(SETTINGS, covered_rps=210) is None
    planned_rps = before_rise.risen(SETTINGS, covered_rps=210)
    assert planned_rps is not None
    assert planned_rps > 200 + AHEAD_S / 36
    assert replace(before_rise, forecast=ForecastSettings("kalman")).risen(SETTINGS, covered_rps=210) is None


def test_what_was_learned_is_part_of_a_checkpoint() -> None:
    demand = seasonal(200.0, NOON_S)
    kept = unpickled(pickled(demand)).learned()
    assert (kept.season, kept.bursts) == (demand.season, demand.bursts)
    assert kept.samples == kept.peaks == ()
