from benchmarks.cluster.fronts import lost
from benchmarks.dataplane.client import BROKEN, OK, Outcome


def test_requests_in_progress_at_the_end_of_the_gateway_are_not_lost() -> None:
    outcomes = [
        Outcome(1.0, 50, OK),
        Outcome(4.9, 200, BROKEN),
        Outcome(5.0, 300, OK),
        Outcome(5.2, 20, BROKEN),
        Outcome(9.0, 40, OK),
    ]
    found = {figure.id.rpartition(".")[2]: figure.value for figure in lost(outcomes, 5.0, 5.1, "killed")}
    assert found == {"elsewhere_s": 0.3, "lost": 1}


def test_the_time_until_calls_go_elsewhere_includes_failures_in_progress() -> None:
    outcomes = [Outcome(4.9, 800, BROKEN), Outcome(5.0, 30, OK)]
    figures = lost(outcomes, 5.0, 5.1, "killed")
    assert [figure.value for figure in figures] == [0.7, 0]
