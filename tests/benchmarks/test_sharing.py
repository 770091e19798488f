import pytest

from benchmarks.sharing import GRAPHS, RPS, late_share, rare_graphs


def test_rare_graphs_have_equal_or_different_slos() -> None:
    for slo_ms, different in ((None, GRAPHS), (300.0, 1)):
        workloads = rare_graphs(0, slo_ms=slo_ms).workloads
        assert len({w.graph.slo.latency_ms for w in workloads}) == different
        assert {w.demand_rps for w in workloads} == {RPS}


def test_busier_slices_make_more_calls_late() -> None:
    shares = [late_share((9.0, 1.0), load, 0.05, 4000) for load in (0.01, 0.3, 0.6)]
    assert shares == sorted(shares)
    assert shares[0] < 0.001 < shares[1] < shares[2] < 1


def test_a_chain_takes_a_turn_for_each_step() -> None:
    # The other model hardly runs, so a call waits only for earlier calls of its own model.
    alone = late_share((0.001, 1.0), 0.2, 0.99, 4000)
    assert late_share((0.001, 0.5), 0.2, 0.99, 4000, steps=2) == pytest.approx(alone, abs=0.01)
    # Each step may wait for a long turn, but the plan allows for that.
    assert late_share((9.0, 1.0), 0.2, 0.05, 4000, steps=3) < 0.01
