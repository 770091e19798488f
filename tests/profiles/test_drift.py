from dataclasses import replace

import pytest

from jigsaw_triton.profiles.drift import LEAST_BATCHES, Answered, drift_findings, drifts
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.problems import row

ROW = replace(row("t0", "v0", batch=4), latency_p50_ms=10.0, latency_p95_ms=10.0, latency_p99_ms=10.0)
TABLE = ProfileTable([ROW])


def answered(ratio: float, *, batches: float = 200.0) -> Answered:
    return Answered(ROW.key, batches, ratio * 0.01 * batches, 0.01 * batches)


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.3, "slower"), (1.2, "as profiled"), (0.85, "as profiled"), (0.7, "faster")]
)
def test_a_configuration_is_judged_by_the_ratio_of_its_times(ratio: float, verdict: str) -> None:
    (found,) = drifts(TABLE, [answered(ratio)])
    assert (found.key, found.workers, found.batches, found.verdict) == (ROW.key, 1, 200.0, verdict)
    assert found.profiled_ms == pytest.approx(10.0)
    assert found.measured_ms == pytest.approx(10.0 * ratio)


def test_all_workers_of_a_configuration_count_together() -> None:
    (found,) = drifts(TABLE, [answered(1.0, batches=300.0), answered(2.0, batches=100.0)])
    assert (found.workers, found.batches) == (2, 400.0)
    assert found.ratio == pytest.approx(1.25)


def test_few_batches_are_not_judged() -> None:
    (found,) = drifts(TABLE, [answered(9.0, batches=LEAST_BATCHES - 1)])
    assert found.verdict == "too few batches"
    assert list(drift_findings([found])) == []


def test_the_profiled_mean_is_longer_than_the_median_if_the_percentiles_are() -> None:
    skewed = ProfileTable([replace(ROW, latency_p95_ms=30.0, latency_p99_ms=60.0)])
    (found,) = drifts(skewed, [answered(1.3)])
    assert found.profiled_ms > 12.0
    assert found.verdict == "as profiled"


def test_workers_without_a_profile_or_a_batch_are_left_out() -> None:
    unknown = replace(answered(1.0), key=replace(ROW.key, batch=8))
    assert drifts(TABLE, [unknown, answered(1.0, batches=0.0)]) == []


def test_only_a_slower_configuration_is_a_warning() -> None:
    slow, fast = drifts(TABLE, [answered(1.5)]), drifts(TABLE, [answered(0.5)])
    (finding,) = drift_findings([*slow, *fast])
    assert (finding.key, finding.severity) == (ROW.key, "warning")
    assert finding.message == (
        "batches take 1.50 times as long as profiled: 15 instead of 10 ms (mean of 200 on 1 workers)"
    )
