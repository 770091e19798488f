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
