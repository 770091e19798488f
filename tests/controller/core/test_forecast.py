from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.controller.core.bursts import Bursts
from jigsaw_triton.controller.core.demand import Demand, Sample
from jigsaw_triton.controller.core.forecast import (
    FORECASTS,
    LEAST_WINDOW_S,
    PEAK_S,
    ForecastSettings,
    highest,
    holt,
    kalman,
    last,
)
from jigsaw_triton.controller.core.settings import Settings

PEAKS = st.lists(st.floats(0, 1e6), min_size=1, max_size=40)


@pytest.mark.parametrize("name", FORECASTS)
@given(peaks=PEAKS)
def test_no_forecast_is_negative_and_a_constant_load_is_expected_to_stay(name: str, peaks: list[float]) -> None:
    assert FORECASTS[name](peaks) >= 0
    assert FORECASTS[name]([peaks[0]] * len(peaks)) == pytest.approx(peaks[0])


def test_a_longer_window_counts_as_seen_only_as_far_as_there_are_peaks() -> None:
    demand = Demand(bursts=replace(Bursts(), seen_s=5000.0))
    for second in range(310):
        demand = demand.with_sample(Sample(float(second), 100.0 if second < 200 else 10.0), Settings())
    assert demand.fallen(110.0, 1.0, Settings()) is not None
    longer = demand.with_forecast(ForecastSettings("highest", 300.0))
    assert longer.fallen(110.0, 1.0, Settings()) is None
    for second in range(310, 600):
        longer = longer.with_sample(Sample(float(second), 10.0), Settings())
    assert longer.fallen(110.0, 1.0, Settings()) is not None


def test_capacity_is_given_back_with_the_shortest_window() -> None:
    demand = Demand(forecast=ForecastSettings("highest", LEAST_WINDOW_S))
    for second in range(1200):
        demand = demand.with_sample(Sample(float(second), 10.0), Settings())
    assert demand.fallen(110.0, 1.0, Settings()) is not None


def test_the_default_is_a_forecast() -> None:
    assert ForecastSettings().name in FORECASTS


def test_forecasts_expect_the_last_or_the_highest_peak() -> None:
    assert (last([3.0, 9.0, 4.0]), highest([3.0, 9.0, 4.0])) == (4.0, 9.0)


def test_holt_follows_a_trend_beyond_the_last_peak() -> None:
    rising, falling = [10.0 * i for i in range(30)], [300 - 10.0 * i for i in range(30)]
    assert holt(rising) > 290 + 30
    assert holt(falling) < 10


def test_the_kalman_filter_stays_above_the_noise_and_below_one_outlier() -> None:
    noisy = [100.0 + (10 if i % 2 else -10) for i in range(40)]
    assert 110 < kalman(noisy) < 150
    assert kalman([100.0] * 20 + [1000.0] + [100.0] * 19) < 700


def seen(rates_rps: list[float]) -> Demand:
    demand = Demand()
    for second, rate in enumerate(rates_rps):
        demand = demand.with_sample(Sample(float(second), rate), Settings())
    return demand


def test_peaks_are_means_of_whole_windows_inside_their_intervals() -> None:
    demand = seen([100.0] * 10 + [10.0, 10.0, 10.0, 10.0, 50.0, 50.0, 50.0, 50.0, 10.0, 10.0])
    assert [(peak.at_s, peak.rps) for peak in demand.peaks] == [(0.0, 100.0), (PEAK_S, 50.0)]


def test_peaks_older_than_the_window_are_forgotten() -> None:
    demand = seen([100.0] * 10 + [10.0] * 60)
    assert {peak.rps for peak in demand.peaks} == {10.0}
    assert len(demand.peaks) == 6


def test_a_gap_between_samples_is_no_peak() -> None:
    demand = seen([10.0] * 3).with_sample(Sample(8.0, 20.0), Settings())
    assert [peak.rps for peak in demand.peaks] == [20.0]
