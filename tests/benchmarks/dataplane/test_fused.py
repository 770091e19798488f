from benchmarks.dataplane import fused
from benchmarks.dataplane.fused import CLIENTS
from jigsaw_triton.evaluation.load import Measured


def test_rates_are_relative_to_the_native_ensemble_in_the_same_round() -> None:
    ratios = (0.5, 1.05, 1.0)
    runs = {("native", n): [Measured(1, 100.0 * n, {50: ms}) for ms in (1, 2, 3)] for n in CLIENTS}
    runs |= {
        ("fused", n): [
            Measured(1, part * run.throughput_rps, {50: run.latency_ms[50] + 0.4})
            for part, run in zip(ratios, runs["native", n], strict=True)
        ]
        for n in CLIENTS
    }
    found = {figure.id: figure for figure in fused.figures(runs)}
    rate = found["dataplane.fused.rate.32_clients"]
    assert (rate.value, rate.goal, rate.met, rate.baseline) == (1.0, ">= 1", True, 3200)
    added = found["dataplane.fused.p50_added_ms.1_client"]
    assert (round(added.value, 6), added.baseline) == (0.4, 2)
