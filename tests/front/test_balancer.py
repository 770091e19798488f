from pathlib import Path

import pytest

from jigsaw_triton.front.balancer import Load, Report, parse_report, wanted_weights
from jigsaw_triton.front.haproxy_stats import ServerState
from jigsaw_triton.servers.metrics import parse_metrics
from tests.front.fronts import front

METRICS = """\
# HELP jigsaw_capacity_rps Capacity
jigsaw_capacity_rps{graph="traffic"} 120
jigsaw_capacity_rps{graph="faces"} 8.5
jigsaw_arrivals_total{graph="traffic"} 1000
jigsaw_refused_total{graph="traffic",task="detect",reason="worker"} 5
jigsaw_refused_total{graph="traffic",task="classify",reason="late"} 2
jigsaw_refused_total{graph="traffic",task="detect",reason="request"} 90
nv_inference_count{model="traffic"} 7
"""
UP, DOWN, IDLE = ServerState(True, 256, 0, 0), ServerState(False, 256, 0, 0, "L4CON"), ServerState(True, 0, 0, 0)


def load(*arrivals: float, capacity: float = 100.0) -> Load:
    """Returns reports a second apart of the graph `traffic`."""
    found = Load()
    for second, total in enumerate(arrivals):
        found.add(Report(float(second), {"traffic": capacity}, {"traffic": total}))
    return found


def servers(cell2: ServerState = UP, standby: ServerState = IDLE) -> dict[tuple[str, str], ServerState]:
    own = {"cell1": UP, "cell2": cell2, "cell2.standby": standby, "cell2.last": UP}
    return {(f"{protocol}.traffic", name): state for protocol in ("http", "grpc") for name, state in own.items()}


def test_a_report_has_the_capacity_and_arrivals_of_each_graph() -> None:
    report = parse_report(parse_metrics(METRICS), 5.0)
    assert report == Report(5.0, {"traffic": 120, "faces": 8.5}, {"traffic": 1000}, {"traffic": 7})


def test_the_load_is_the_growth_of_arrivals() -> None:
    assert load(100, 130, 160).rate_rps("traffic") == pytest.approx(30)
    assert load(100).rate_rps("traffic") is None
    assert load(100, 3).rate_rps("traffic") == 0


def test_a_gateway_that_does_not_answer_has_no_load() -> None:
    found = load(100, 130)
    found.add(None)
    assert found.rate_rps("traffic") is None


def test_cells_that_report_nothing_have_the_weights_of_the_file(tmp_path: Path) -> None:
    found = wanted_weights(front(tmp_path), {}, servers())
    assert found == {
        (f"{protocol}.traffic", name): weight
        for protocol in ("http", "grpc")
        for name, weight in (("cell1", 256), ("cell2", 85), ("cell2.standby", 0))
    }


def test_a_cell_that_carries_less_than_its_share_gets_less(tmp_path: Path) -> None:
    loads = {"cell1": load(0, 60, capacity=30), "cell2": load(0, 20, capacity=100)}
    found = wanted_weights(front(tmp_path), loads, servers())
    assert (found["http.traffic", "cell1"], found["http.traffic", "cell2"]) == (154, 256)


def test_a_cell_that_refuses_requests_carries_what_it_answers(tmp_path: Path) -> None:
    found = Load()
    for second, refused in enumerate((0.0, 45.0)):
        found.add(Report(float(second), {"traffic": 100.0}, {"traffic": 60.0 * second}, {"traffic": refused}))
    assert found.capacity_rps("traffic") == pytest.approx(15)
    weights = wanted_weights(front(tmp_path), {"cell1": found, "cell2": load(0, 20)}, servers())
    assert (weights["http.traffic", "cell1"], weights["http.traffic", "cell2"]) == (59, 256)


def test_the_limit_of_a_cell_that_refused_requests_rises_until_it_is_no_limit_any_more() -> None:
    found = Load()
    found.add(Report(0.0, {"traffic": 100.0}, {"traffic": 0.0}, {"traffic": 0.0}))
    found.add(Report(1.0, {"traffic": 100.0}, {"traffic": 60.0}, {"traffic": 60.0}))
    assert found.capacity_rps("traffic") == 0
    found.add(Report(2.0, {"traffic": 100.0}, {"traffic": 60.0}, {"traffic": 60.0}))
    assert found.capacity_rps("traffic") == 0
    found.add(Report(3.0, {"traffic": 100.0}, {"traffic": 70.0}, {"traffic": 60.0}))
    assert found.capacity_rps("traffic") == pytest.approx(11)
    found.add(Report(4.0, {"traffic": 100.0}, {"traffic": 165.0}, {"traffic": 60.0}))
    assert found.capacity_rps("traffic") == 100


def test_few_refused_requests_say_nothing_about_the_capacity() -> None:
    found = Load()
    for second, refused in enumerate((0.0, 0.5)):
        found.add(Report(float(second), {"traffic": 100.0}, {"traffic": 60.0 * second}, {"traffic": refused}))
    assert found.capacity_rps("traffic") == 100


def test_a_standby_gateway_has_a_weight_while_the_gateway_is_down(tmp_path: Path) -> None:
    found = wanted_weights(front(tmp_path), {}, servers(cell2=DOWN))
    assert (found["grpc.traffic", "cell2"], found["grpc.traffic", "cell2.standby"]) == (85, 85)
    both = wanted_weights(front(tmp_path), {}, servers(cell2=DOWN, standby=DOWN))
    assert both["grpc.traffic", "cell2.standby"] == 0
