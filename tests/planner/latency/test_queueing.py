"""Tests of properties that every prediction must have; `benchmarks.queueing` measures the error against simulations."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.planner.latency.queueing import Case, latencies_ms
from jigsaw_triton.profiles.service import ServiceTime

STEADY = ServiceTime((1,), (10.0,), 1.0, 1.0)
BATCHES = ServiceTime((1, 8), (4.0, 10.0), 1.1, 1.2)


def latency_ms(time: ServiceTime, instances: int, load: float, rows: float, quantile: float) -> float:
    (found,) = latencies_ms((Case(time, instances, load, rows),), quantile)
    return found


times = st.builds(
    lambda batch, fixed, p95, more: ServiceTime(
        (1, batch) if batch > 1 else (1,), (fixed, 10.0) if batch > 1 else (10.0,), p95, p95 * more
    ),
    st.sampled_from([1, 2, 4, 8, 16, 32]),
    st.floats(1.0, 9.0),
    st.floats(1.0, 2.0),
    st.floats(1.0, 2.0),
)


def test_without_load_a_request_takes_the_time_of_its_own_batch() -> None:
    assert latency_ms(STEADY, 1, 1e-6, 1, 0.99) == pytest.approx(10.0, rel=3e-3)
    assert latency_ms(BATCHES, 4, 1e-6, 8, 0.5) == pytest.approx(10.0, rel=0.05)


@pytest.mark.parametrize("quantile", [0.5, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("instances", [1, 4])
def test_without_load_latency_has_the_distribution_of_a_batch_time(instances: int, quantile: float) -> None:
    spread = ServiceTime((1,), (10.0,), 1.2, 1.5)
    (factor,) = spread.factors(np.array([NormalDist().inv_cdf(quantile)]))
    assert latency_ms(spread, instances, 1e-6, 1, quantile) == pytest.approx(10 * factor, rel=0.02)


@pytest.mark.parametrize("instances", [1, 23])
def test_a_tiny_load_counts_as_the_smallest_load(instances: int) -> None:
    assert latency_ms(BATCHES, instances, 1e-300, 1, 0.99) == latency_ms(BATCHES, instances, 1e-6, 1, 0.99)


def test_latency_is_infinite_at_full_load() -> None:
    assert latency_ms(STEADY, 3, 1.0, 1, 0.5) == math.inf


def waits_less(load: float, times: float) -> float:
    """The distribution function of the waiting time of an M/D/1 queue, in service times (Erlang 1909)."""
    terms = (
        (load * (k - times)) ** k / math.factorial(k) * math.exp(load * (times - k)) for k in range(int(times) + 1)
    )
    return (1 - load) * sum(terms)


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7, 0.85])
@pytest.mark.parametrize("quantile", [0.95, 0.99])
def test_one_server_agrees_with_the_m_d_1_queue(load: float, quantile: float) -> None:
    exact = next(t / 100 for t in range(3000) if waits_less(load, t / 100) >= quantile)
    assert 0.97 <= latency_ms(STEADY, 1, load, 1, quantile) / (10 * (1 + exact)) <= 1.16


@pytest.mark.parametrize("load", [0.3, 0.85])
@pytest.mark.parametrize("rows", [20, 100, 1000])
def test_requests_of_many_batches_agree_with_the_m_d_1_queue(load: float, rows: int) -> None:
    # With a constant service time a request takes equally long, however many of its batches wait.
    exact = next(t / 100 for t in range(3000) if waits_less(load, t / 100) >= 0.99)
    assert 0.85 <= latency_ms(STEADY, 1, load, rows, 0.99) / (10 * rows * (1 + exact)) <= 1.16


def test_batches_keep_latency_bounded_where_single_rows_would_overload() -> None:
    # With batches of one, the instance would be overloaded more than twice.
    assert 0.8 * 8 / 10 * 4 > 2
    assert latency_ms(BATCHES, 1, 0.8, 1, 0.99) < 4 * 10


def test_more_instances_wait_less_at_the_same_load() -> None:
    assert latency_ms(BATCHES, 8, 0.85, 1, 0.99) < 0.6 * latency_ms(BATCHES, 1, 0.85, 1, 0.99)


@pytest.mark.parametrize(("rows", "least_ms"), [(9, 20.0), (17, 30.0)])
def test_rows_beyond_a_batch_take_further_rounds(rows: float, least_ms: float) -> None:
    assert latency_ms(BATCHES, 1, 0.01, rows, 0.5) > 0.7 * least_ms


@settings(max_examples=60)
@given(times, st.integers(1, 20), st.floats(0.05, 0.93), st.floats(0.5, 20.0), st.sampled_from([0.9, 0.99, 0.999]))
def test_latency_is_finite_at_least_one_batch_and_rises_with_the_quantile(
    time: ServiceTime, instances: int, load: float, rows: float, quantile: float
) -> None:
    found = latency_ms(time, instances, load, rows, quantile)
    own = float(time.medians_ms[min(time.batch, max(1, math.floor(rows)))])
    assert own * (1 - 1e-6) <= found < math.inf
    assert latency_ms(time, instances, load, rows, 1 - (1 - quantile) / 2) >= found * (1 - 1e-2)


@settings(max_examples=40)
@given(times, st.sampled_from([1, 2, 4, 16]), st.sampled_from([1.0, 3.0]))
def test_latency_rises_with_load(time: ServiceTime, instances: int, rows: float) -> None:
    found = [latency_ms(time, instances, load, rows, 0.99) for load in (0.3, 0.5, 0.65, 0.75, 0.85, 0.92)]
    assert (np.diff(found) >= -0.1 * np.array(found[:-1])).all()


@settings(max_examples=20)
@given(st.lists(st.builds(Case, times, st.integers(1, 20), st.floats(0.05, 1.1), st.floats(0.5, 20.0)), max_size=8))
def test_cases_do_not_depend_on_each_other(cases: list[Case]) -> None:
    alone = tuple(latency_ms(c.time, c.instances, c.load, c.rows, 0.99) for c in cases)
    assert latencies_ms(tuple(cases), 0.99) == alone


def test_a_case_in_a_long_list_has_the_same_latency_as_alone() -> None:
    cases = tuple(Case(BATCHES, 1 + i % 20, 0.1 + 0.001 * i, 1 + i % 3) for i in range(700))
    found = latencies_ms(cases, 0.99)
    for i in (0, 191, 192, 350, 698, 699):
        assert found[i] == latencies_ms(cases[i : i + 1], 0.99)[0]
    assert found[:150] == latencies_ms(cases[:150], 0.99)
