import pytest

from benchmarks.sharing import GRAPHS, RPS, late_share, rare_graphs


def test_rare_graphs_differ_in_their_slos_or_not() -> None:
    for slo_ms, different in ((None, GRAPHS), (300.0, 1)):
        workloads = rare_graphs(0, slo_ms=slo_ms).workloads
        assert len({w.graph.slo.latency_ms for w in workloads}) == different
        assert {w.demand_rps for w in workloads} == {RPS}


def test_busier_slices_make_more_calls_late() -> None:
    shares = [late_share((9.0, 1.0), load, 0.05, 4000) for load in (0.01, 0.3, 0.6)]
    assert shares == sorted(shares)
    assert shares[0] < 0.001 < shares[1] < shares[2] < 1


def test_a_chain_takes_a_turn_for_each_step() -> None:
    # Alone with one that hardly runs, only what comes while another batch is under way waits.
    alone = late_share((0.001, 1.0), 0.2, 0.99, 4000)
    assert late_share((0.001, 0.5), 0.2, 0.99, 4000, steps=2) == pytest.approx(alone, abs=0.01)
    # Where each step waits for a long one, it is planned to.
    assert late_share((9.0, 1.0), 0.2, 0.05, 4000, steps=3) < 0.01
