from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from jigsaw_triton.evaluation.simulator.accounting import NEVER_S, Change, Curve, Replica, all_on_time
from jigsaw_triton.evaluation.simulator.events import event_violations
from jigsaw_triton.graph.model import Slo
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.problems import row

GRAPH = chain(1, slo=Slo(100.0))
ROW = replace(row("t0", "v0", p95_ms=10.0), latency_p50_ms=10.0, latency_p99_ms=10.0)
"""A model that always takes 10 ms, and so serves 100 requests a second."""


class Growing:
    """A system with one replica, and another one from a moment on."""

    def __init__(self, at_s: float) -> None:
        self.now_s, self._at_s = 50.0, 50.0 + at_s

    @property
    def next_s(self) -> float:
        return self._at_s if self.now_s < self._at_s else NEVER_S

    def advance(self, to_s: float) -> None:
        self.now_s = to_s

    def begin_second(self, rates_rps: Mapping[str, float]) -> None: ...

    def tick(self, rates_rps: Mapping[str, float]) -> None: ...

    def curves(self) -> Mapping[str, Curve]:
        return {"chain": all_on_time(100.0)}

    def replicas(self) -> frozenset[Replica]:
        return frozenset(Replica(str(n), "chain", ROW.key) for n in range(1 if self.now_s < self._at_s else 2))

    def slices(self) -> int:
        return 1

    def accuracy(self, graph: str) -> float:
        return 1.0

    def changes(self) -> Sequence[Change]:
        return ()


def missed(at_s: float, rates: list[float]) -> float:
    tables = {"chain": ProfileTable([ROW])}
    return event_violations(Growing(at_s), {"chain": GRAPH}, tables, {"chain": np.array(rates)})


def test_a_load_within_the_capacity_is_on_time() -> None:
    assert missed(NEVER_S, [50.0] * 30) < 0.005


def test_the_load_beyond_the_capacity_is_missed_until_a_replica_comes() -> None:
    assert missed(NEVER_S, [150.0] * 30) == pytest.approx(1 / 3, abs=0.03)
    assert missed(10.0, [150.0] * 30) == pytest.approx(1 / 9, abs=0.02)


def test_a_graph_without_a_replica_serves_nothing() -> None:
    two = {"chain": chain(2, slo=Slo(100.0))}
    arrivals = {"chain": np.full(5, 10.0)}
    assert event_violations(Growing(1.0), two, {"chain": ProfileTable([ROW])}, arrivals) == 1.0
