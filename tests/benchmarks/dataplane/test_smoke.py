"""Smoke tests: every part of the benchmark starts, loads its servers, and returns its figures."""

import pytest

from benchmarks import a100, harness, system
from benchmarks.dataplane.__main__ import PARTS
from benchmarks.effort import SMOKE
from benchmarks.parts import measure

pytestmark = pytest.mark.e2e

FIGURES = {
    "native": "dataplane.chain2.rate.32_clients",
    "fused": "dataplane.fused.rate.32_clients",
    "onnx": "dataplane.onnx.worker.rate.32_clients",
    "depth": "dataplane.depth",
    "cost": "dataplane.cost.call_us",
    "saturation": "dataplane.workers",
    "overload": "dataplane.overload3x.served",
    "shared": "dataplane.isolation_shared",
    "docread": "dataplane.docread.rate",
    "edge": "dataplane.edge.rate.32_clients",
    "otlp": "console.otlp_cost",
    "http_lost": "dataplane.http_lost.at_once",
    "hangs": "dataplane.wrong",
    "scale": "dataplane.scale.busy",
    "promise": "dataplane.promise.social",
    "peers": "dataplane.peers.router.32_clients",
    "soak": "dataplane.swapped_answers",
}
"""Part -> one of its figures."""


def test_every_part_has_a_smoke_run() -> None:
    assert FIGURES.keys() == PARTS.keys()


@pytest.mark.parametrize("part", FIGURES)
def test_a_part_returns_its_figures(part: str) -> None:
    if part == "promise" and not a100.TABLE.exists():
        pytest.skip("the A100 table is not beside the checkout")

    def progress(text: str) -> None:
        print(text)

    found = system.run(measure(progress, {part: PARTS[part]}, SMOKE), harness.limit_s("dataplane"))
    assert FIGURES[part] in {figure.id for figure in found}
