from benchmarks.dataplane import edge
from jigsaw_triton.evaluation.load import Measured


def run(rps: float, p50_ms: float) -> Measured:
    return Measured(100, rps, {50: p50_ms})


def test_figures_compare_runs_of_the_same_round() -> None:
    runs = {
        (side, clients): [run(rps / slow, p50_ms * slow) for slow in (1, 2, 5)]
        for side, rps, p50_ms in (("direct", 1000.0, 1.0), ("edge", 950.0, 1.125))
        for clients in edge.CLIENTS
    }
    found = {figure.id: figure for figure in edge.figures(runs)}
    assert {name: figure.value for name, figure in found.items()} == {
        "dataplane.edge.rate.1_client": 0.95,
        "dataplane.edge.rate.8_clients": 0.95,
        "dataplane.edge.rate.32_clients": 0.95,
        "dataplane.edge.p50_added_ms": 0.25,
    }
    assert found["dataplane.edge.rate.32_clients"].met
    assert found["dataplane.edge.p50_added_ms"].met is False
