import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.report.axes import (
    Axis,
    deviation_axis,
    groups_axis,
    linear_axis,
    log_axis,
    sizes_axis,
    span_axis,
    time_axis,
)

positive = st.lists(st.floats(1e-320, 1.7e308), min_size=1, max_size=6)


def texts(axis: Axis) -> list[str]:
    return [text for _, text in axis.ticks]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1.0, 1000.0), ["1", "10", "100", "1,000"]),
        ((131.0, 402.0), ["150", "200", "300"]),
        ((2.0, 60.0), ["3", "10", "30"]),
        ((20.0, 20.0), ["18", "19", "20", "21", "22", "23"]),
    ],
)
def test_a_logarithmic_axis_has_round_ticks(values: tuple[float, float], expected: list[str]) -> None:
    assert texts(log_axis("ms", values)) == expected


def test_an_axis_of_sizes_shows_the_sizes_or_some_of_them() -> None:
    assert texts(sizes_axis("batch", [8, 1, 2, 8])) == ["1", "2", "8"]
    assert len(texts(sizes_axis("batch", range(1, 100)))) <= 7


def test_a_linear_axis_begins_at_0() -> None:
    axis = linear_axis("items/s", [3.0, 970.0])
    assert (axis.low, axis.share(0), texts(axis)) == (0.0, 0.0, ["0", "500", "1,000"])
    assert texts(linear_axis("items/s", []))[0] == "0"
    assert texts(linear_axis("items/s", [5e-324]))[0] == "0"


def test_an_axis_of_a_span_begins_near_the_smallest_value() -> None:
    axis = span_axis("accuracy", [28.0, 50.7])
    assert 25 < axis.low < 28 and 50.7 < axis.high < 54
    assert texts(axis) == ["30", "40", "50"]
    assert span_axis("accuracy", [0.9]).share(0.9) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, ["00:00:50"]),
        (40, ["00:00:50", "00:01:00", "00:01:10", "00:01:20"]),
        (1800, ["00:05", "00:10", "00:15", "00:20", "00:25", "00:30"]),
        (3600, ["00:10", "00:20", "00:30", "00:40", "00:50", "01:00"]),
    ],
)
def test_an_axis_of_times_has_round_ones(seconds: int, expected: list[str]) -> None:
    found = time_axis("time", 45.0, 45.0 + seconds)
    assert [text for _, text in found.ticks] == expected
    assert all(0 <= found.share(tick) <= 1 for tick, _ in found.ticks)


def test_an_axis_of_groups_centres_each_group() -> None:
    axis = groups_axis("slice", ["1g", "2g"])
    assert (axis.share(0), axis.share(1)) == (0.25, 0.75)


def test_an_axis_of_deviations_is_in_percent_and_ends_at_half_and_twice() -> None:
    assert texts(deviation_axis("", [0.06])) == ["\u22125%", "\u22122%", "0%", "+2%", "+5%"]
    axis = deviation_axis("", [9.0])
    assert (axis.share(9.0), axis.share(-9.0), axis.share(0)) == (1.0, 0.0, 0.5)


@pytest.mark.parametrize("make", [log_axis, linear_axis, span_axis])
@given(values=positive)
def test_no_values_break_an_axis(make: object, values: list[float]) -> None:
    assert callable(make)
    axis: Axis = make("x", values)
    assert 1 <= len(axis.ticks) <= 16
    assert all(math.isfinite(value) and 0 <= axis.share(value) <= 1 for value, _ in axis.ticks)
    assert all(0 <= axis.share(value) <= 1 for value in values)
