import pytest

from benchmarks.dataplane import otlp
from benchmarks.dataplane.otlp import Run


def test_figures_compare_runs_of_the_same_round() -> None:
    runs = {
        "none": [Run(1000, 100), Run(500, 200), Run(100, 300)],
        "sampled": [Run(980, 102), Run(490, 204), Run(10, 900)],
        "ten times": [Run(800, 120), Run(400, 240), Run(100, 300)],
    }
    rate, derived, processor = otlp.figures(runs)
    assert (rate.id, rate.value, rate.met, rate.baseline) == ("console.otlp_cost", 0.98, True, 500)
    # A request takes 1 ms, 1.25 ms with 10% exported, and so 1.025 ms with 1%.
    assert (derived.id, derived.met) == ("console.otlp_cost.derived", True)
    assert derived.value == pytest.approx(1 / 1.025, rel=1e-3)
    assert (processor.id, processor.value, processor.met) == ("console.otlp_cost.processor", 1.02, True)
    assert processor.baseline == 200
