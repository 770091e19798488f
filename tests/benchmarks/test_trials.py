import pytest

from benchmarks.controller.simulated import TRACES
from benchmarks.effort import SMOKE
from benchmarks.trials import figures, measure
from jigsaw_triton.evaluation.replay import OURS, Contender
from jigsaw_triton.evaluation.trials import Trial, Trials


@pytest.mark.slow
@pytest.mark.skipif(not TRACES.exists(), reason="the traces are not beside the checkout")
def test_the_benchmark_has_a_smoke_run() -> None:
    found = {figure.id for figure in measure(print, SMOKE)}
    assert {"trials.slices.social.exact.AST", "trials.violations.social.paper.AST"} <= found


def test_figures_are_shares_beside_what_the_paper_reports() -> None:
    slices, violations = figures("ar", Trials(Contender("paper"), (Trial(100.0, 5.0, 14, 1.0),)), 28)
    assert (slices.id, slices.value, violations.value) == ("trials.slices.ar.paper.AST", 0.5, 0.05)
    assert "the paper reports 43.3% of the slices and < 0.6% violations" in slices.note
    assert figures("ar", Trials(OURS, (), "too slow"), 28) == []
