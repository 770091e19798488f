from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.gpus import model as gpus
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.profiles.latency_model import NAMES, SHARES, Array, Points, log_latency, monotone

TYPICAL = np.array((1.6, 0.5, -0.7, 0.0, 0.1, 0.5, -3.0, 1.4, -4.0))
PARAMETERS = st.lists(st.floats(-1.5, 1.5), min_size=len(NAMES), max_size=len(NAMES)).map(np.array)
KINDS = st.sampled_from(sorted(SHARES))


def latency_ms(kind: str, instances: int, batch: int, parameters: Array = TYPICAL) -> float:
    logs, _ = log_latency(parameters, Points.of([(kind, instances, batch)], {}))
    return float(np.exp(logs[0]))


def test_every_kind_of_slice_has_the_shares_of_the_catalog() -> None:
    assert set(SHARES) == set(gpus.SLICES)
    for kind, profile in board("A100-80GB").profiles.items():
        assert SHARES[kind] == (profile.compute_slices, profile.memory_slices)


def test_a_small_batch_takes_the_floor_and_a_large_one_its_work() -> None:
    floor, work, serial = np.exp(TYPICAL[[0, 1, 6]]).tolist()
    share = 1 / (1 + np.exp(-TYPICAL[5]))
    assert latency_ms("7g", 1, 1) == pytest.approx(floor, rel=0.01)
    unit = share / 4 + (1 - share) / 4 + serial
    assert latency_ms("4g", 1, 100_000) == pytest.approx(100_000 * work * unit, rel=0.01)


def test_instances_share_the_slice() -> None:
    assert latency_ms("1g", 4, 256) / latency_ms("1g", 2, 256) == pytest.approx(2.0, rel=0.06)


def test_the_memory_of_a_slice_speeds_up_a_model_that_is_bound_by_memory() -> None:
    bound_by_memory, bound_by_compute = TYPICAL.copy(), TYPICAL.copy()
    bound_by_memory[5], bound_by_compute[5] = -9.0, 9.0
    ratios = [latency_ms("4g", 1, 256, p) / latency_ms("3g", 1, 256, p) for p in (bound_by_memory, bound_by_compute)]
    assert ratios[0] == pytest.approx(1.0, abs=0.01)
    assert 0.75 <= ratios[1] < 0.8


def test_a_correction_scales_a_kind_of_slice() -> None:
    points = [Points.of([("2g", 3, 64)], corrections) for corrections in ({}, {"2g": 0.1}, {"1g": 0.1})]
    plain, corrected, other = (log_latency(TYPICAL, one)[0][0] for one in points)
    assert 0.08 < corrected - plain < 0.1
    assert other == plain


@given(PARAMETERS, KINDS, st.integers(1, 5), st.sampled_from([1, 2, 8, 64]))
def test_the_derivatives_are_those_of_the_latency(parameters: Array, kind: str, instances: int, batch: int) -> None:
    def at(shift: Array, correction: float = 0.05) -> float:
        return float(log_latency(parameters + shift, Points.of([(kind, instances, batch)], {kind: correction}))[0][0])

    _, derivatives = log_latency(parameters, Points.of([(kind, instances, batch)], {kind: 0.05}))
    step = 1e-6
    numeric = [(at(shift) - at(-shift)) / (2 * step) for shift in step * np.eye(len(NAMES))]
    numeric.append((at(np.zeros(len(NAMES)), 0.05 + step) - at(np.zeros(len(NAMES)), 0.05 - step)) / (2 * step))
    assert derivatives[0] == pytest.approx(numeric, abs=1e-5)


@given(PARAMETERS, KINDS, st.integers(1, 5))
def test_a_larger_batch_and_more_instances_never_take_less_time(parameters: Array, kind: str, instances: int) -> None:
    limited = monotone(parameters)
    by_batch = [latency_ms(kind, instances, batch, limited) for batch in (1, 2, 3, 4, 16, 256)]
    by_instances = [latency_ms(kind, count, 4, limited) for count in (1, 2, 3, 5)]
    for latencies in (by_batch, by_instances):
        assert all(b >= a * (1 - 1e-9) for a, b in pairwise(latencies))
