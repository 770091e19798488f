from benchmarks.cluster import remote


def test_the_cost_compares_runs_of_the_same_round() -> None:
    runs: remote.Runs = {
        (graph, way): [rps * speed for rps in rates]
        for graph, speed in (("tiny", 10.0), ("600_kb", 1.0))
        for way, rates in zip(remote.WAYS, ([200, 100, 400], [90, 35, 170], [100, 50, 200]), strict=True)
    }
    found = {figure.id.removeprefix("cluster.remote_cost."): figure for figure in remote.figures(runs)}
    assert {name: (figure.value, figure.baseline, figure.met) for name, figure in found.items()} == {
        "tiny": (0.85, 1000, True),
        "600_kb": (0.85, 100, True),
        "600_kb_shared": (0.425, 200, None),
    }
    assert "median of 3 rounds, 0.7 to 0.9; 900 requests/s; baseline: the same worker" in found["tiny"].note
