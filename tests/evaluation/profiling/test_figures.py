from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.evaluation.profiling.figures import figures, percentile, within


@given(st.lists(st.floats(0, 1e6), min_size=1).map(sorted), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_with_enough_values_up_to_it(values: list[float], percent: int) -> None:
    found = percentile(values, percent)
    assert found in values
    assert Fraction(sum(v <= found for v in values), len(values)) >= Fraction(percent, 100)
    assert Fraction(sum(v < found for v in values), len(values)) < Fraction(percent, 100)


def test_batches_that_cross_the_interval_do_not_count() -> None:
    spans = [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 4.0)]
    assert within(spans, 0.5, 3.5) == [(1.0, 2.0), (2.0, 3.0)]


def test_throughput_is_the_sum_of_the_lanes_in_items() -> None:
    # One lane has 4 batches of 0.5 s. The other starts later and has 2 batches of 1 s.
    quick = [(n / 2, (n + 1) / 2) for n in range(4)]
    slow = [(0.25, 1.25), (1.25, 2.25)]
    found = figures([quick, slow], batch=8)
    assert found.throughput_rps == pytest.approx(8 * (4 / 2 + 2 / 2))
    assert (found.latency_p50_ms, found.latency_p95_ms, found.latency_p99_ms) == (500, 1000, 1000)
    assert found.batches == 6
