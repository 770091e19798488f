from benchmarks.dataplane import otlp
from jigsaw_triton.evaluation.load import Measured


def test_figures_compare_runs_of_the_same_round() -> None:
    def run(rps: float) -> Measured:
        return Measured(100, rps, {50: 1.0})

    runs = {
        "none": [run(1000), run(500), run(100)],
        "sampled": [run(980), run(490), run(10)],
        "all": [run(900), run(450), run(90)],
    }
    sampled, everything = otlp.figures(runs)
    assert (sampled.id, sampled.value, sampled.met, sampled.baseline) == ("console.otlp_cost", 0.98, True, 500)
    assert (everything.id, everything.value, everything.met) == ("console.otlp_cost.all", 0.9, None)
