import math

import numpy as np
import pytest

from jigsaw_triton.evaluation.profiling.confidence import LEAST_BATCHES, SECTIONS, STUDENT_T, half_widths
from jigsaw_triton.evaluation.profiling.figures import Span

SEED = 5


def lane(seconds: list[float]) -> list[Span]:
    """Returns back-to-back batches of these durations."""
    ends = np.cumsum(seconds).tolist()
    return list(zip([0.0, *ends[:-1]], ends, strict=True))


def test_equal_batches_are_certain() -> None:
    found = half_widths([lane([0.01] * LEAST_BATCHES)])
    assert found is not None
    assert found.widest == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("lanes", [[[0.01] * (LEAST_BATCHES - 1)], [[0.01] * LEAST_BATCHES, [1.0] * (SECTIONS - 1)]])
def test_few_batches_have_no_interval(lanes: list[list[float]]) -> None:
    assert half_widths([lane(seconds) for seconds in lanes]) is None


def test_the_half_width_follows_from_the_deviations_of_the_sections() -> None:
    # Nine sections of ten batches of 1 s, and one with batches of 2 s.
    found = half_widths([lane([1.0] * 90 + [2.0] * 10)])
    assert found is not None
    throughput = 100 / 110
    squares = 9 * (1 - throughput) ** 2 + (0.5 - throughput) ** 2
    assert found.throughput == pytest.approx(STUDENT_T * math.sqrt(squares / 90) / throughput)
    # The 95th percentile of all batches is 2 s.
    assert found.latency_p95 == pytest.approx(STUDENT_T * math.sqrt(9 / 90) / 2)
    assert found.widest == max(found.throughput, found.latency_p95)


@pytest.mark.parametrize("batches", [200, 1000])
def test_intervals_contain_the_true_value_about_as_often_as_they_state(batches: int) -> None:
    """Latencies depend on each other, in both lanes."""
    rng = np.random.default_rng(SEED)
    runs, memory = 150, 0.7
    p95s, rates, inside = [], [], []
    for _ in range(runs):
        noise = rng.normal(size=(2, batches))
        for step in range(1, batches):
            noise[:, step] = memory * noise[:, step - 1] + math.sqrt(1 - memory**2) * noise[:, step]
        spans = [lane(np.exp(0.2 * row).tolist()) for row in noise]
        found = half_widths(spans)
        assert found is not None
        p95s.append(float(np.quantile(np.exp(0.2 * noise), 0.95)))
        rates.append(sum(len(one) / one[-1][1] for one in spans))
        inside.append((found.latency_p95, found.throughput))
    # The noise has a standard normal distribution.
    p95, rate = math.exp(0.2 * 1.645), 2 / math.exp(0.2**2 / 2)
    covered = [
        (abs(p - p95) <= width_p * p, abs(r - rate) <= width_r * r)
        for p, r, (width_p, width_r) in zip(p95s, rates, inside, strict=True)
    ]
    for share in np.mean(covered, axis=0):
        assert 0.88 <= share <= 1
