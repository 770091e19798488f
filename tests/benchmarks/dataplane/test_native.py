from pathlib import Path

from benchmarks.dataplane import graphs, native
from benchmarks.dataplane.native import Run
from jigsaw_triton.evaluation.load import Measured


def run(rps: float, p50_ms: float = 1.0) -> Run:
    return Run(Measured(100, rps, {50: p50_ms}), cpu_us=1e6 / rps)


def test_ratios_compare_runs_of_the_same_round() -> None:
    """The machine gets slower from round to round, which must not look like a difference between the sides."""
    sides = {"native": 1000.0, "graph": 900.0, "ensemble": 800.0, "bls": 300.0, "native_rows": 500.0, "rows": 450.0}
    runs = {
        (side, clients): [run(rps / slow, slow if side == "native" else 3 * slow) for slow in (1, 2, 5)]
        for side, rps in sides.items()
        for clients in native.RUNS
    }
    large = {("native_large", n): [400.0, 100.0] for n in (1, 8)} | {("large", n): [240.0, 60.0] for n in (1, 8)}
    found = {f.id: f for f in native.figures(runs, large)}
    assert {name: f.value for name, f in found.items()} == {
        "dataplane.chain2.rate.1_client": 0.9,
        "dataplane.chain2.rate.8_clients": 0.9,
        "dataplane.chain2.rate.32_clients": 0.9,
        "dataplane.chain2.ensemble.rate.1_client": 0.8,
        "dataplane.chain2.ensemble.rate.8_clients": 0.8,
        "dataplane.chain2.ensemble.rate.32_clients": 0.8,
        "dataplane.chain2.p50_added_ms.1_client": 4.0,
        "dataplane.fanout3.rate.32_clients": 0.9,
        "dataplane.large.rate.1_client": 0.6,
        "dataplane.large.rate.8_clients": 0.6,
        "dataplane.bls.rate.32_clients": 0.3,
        "dataplane.cpu_us.1_client": 1.11,
        "dataplane.cpu_us.8_clients": 1.11,
        "dataplane.cpu_us.32_clients": 1.11,
    }
    assert [found[f"dataplane.chain2.rate.{n}_clients"].met for n in (8, 32)] == [True, False]
    assert found["dataplane.chain2.rate.8_clients"].baseline == 500


def test_the_graphs_fan_out_where_they_should(tmp_path: Path) -> None:
    assert not graphs.chain(tmp_path, "chain").fans_out
    assert not graphs.fixed_rows(tmp_path, "fixed").fans_out
    assert graphs.fan_out(tmp_path, "rows", target="graph").fans_out
    assert graphs.multiples(tmp_path, "multiples").fans_out
