from pathlib import Path

from benchmarks.dataplane import graphs, native
from benchmarks.dataplane.native import RUNS
from jigsaw_triton.evaluation.load import Measured


def run(rps: float, p50_ms: float = 1.0) -> Measured:
    return Measured(100, rps, {50: p50_ms})


def test_ratios_are_of_runs_of_the_same_round() -> None:
    """The machine got slower from round to round: what both sides lost is no difference between them."""
    sides = {"native": 1000.0, "ensemble": 800.0, "bls": 400.0, "native_rows": 500.0, "rows": 450.0, "rows_bls": 90.0}
    runs = {
        (side, clients): [run(rps / slow, slow if side == "native" else 3 * slow) for slow in (1, 2, 5)]
        for side, rps in sides.items()
        for clients in RUNS
    }
    found = {f.id: f for f in native.figures(runs, {"native_large": [400.0, 100.0], "large": [240.0, 60.0]})}
    assert {name: f.value for name, f in found.items()} == {
        "dataplane.chain2.rate.1_client": 0.8,
        "dataplane.chain2.rate.8_clients": 0.8,
        "dataplane.chain2.rate.32_clients": 0.8,
        "dataplane.chain2.p50_added_ms.1_client": 4.0,
        "dataplane.fanout3.rate.32_clients": 0.9,
        "dataplane.large.rate.8_clients": 0.6,
        "dataplane.bls_over_ensemble.1_client": 0.5,
        "dataplane.bls_over_ensemble.8_clients": 0.5,
        "dataplane.bls_over_ensemble.32_clients": 0.5,
        "dataplane.bls_over_ensemble.fanout3.32_clients": 0.2,
    }
    assert [found[f"dataplane.chain2.rate.{n}_clients"].met for n in (8, 32)] == [True, False]
    assert found["dataplane.chain2.rate.8_clients"].baseline == 500


def test_the_graphs_fan_out_where_they_should(tmp_path: Path) -> None:
    assert not graphs.chain(tmp_path, "chain").fans_out
    assert not graphs.fixed_rows(tmp_path, "fixed").fans_out
    assert graphs.fan_out(tmp_path, "rows", target="bls").fans_out
    assert graphs.multiples(tmp_path, "multiples").fans_out
