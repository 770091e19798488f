import pytest

from benchmarks.dataplane import depth
from benchmarks.dataplane.depth import DEPTHS
from jigsaw_triton.evaluation.load import Measured


def runs(added_ms: dict[int, float]) -> depth.Runs:
    """Returns three rounds of both sides, each slower than the one before."""
    native = {("native", d): [Measured(1, 1, {50: slow + 0.2 * d}) for slow in (1, 2, 3)] for d in DEPTHS}
    chain = {
        ("chain", d): [Measured(1, 1, {50: run.latency_ms[50] + added_ms[d]}) for run in native["native", d]]
        for d in DEPTHS
    }
    return {**native, **chain}


def test_the_slope_is_of_the_latency_added_to_the_native_ensemble() -> None:
    (found,) = depth.figures(runs({d: 0.1 + 0.1 * d for d in DEPTHS}))
    assert (found.value, found.met, found.baseline) == (0.1, True, 0.2)
    assert "intercept 0.10 ms, at most 0.00 ms off the line" in found.note


@pytest.mark.parametrize("off_ms", [0.7, -0.7])
def test_the_note_reports_a_deviation_from_the_line(off_ms: float) -> None:
    (found,) = depth.figures(runs({d: 0.3 * d + off_ms * (d == 3) for d in DEPTHS}))
    assert "at most 0.57 ms off the line" in found.note
