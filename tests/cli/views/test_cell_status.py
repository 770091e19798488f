from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.cli.views.cell_status import cells_view

GRAPH = {"arrivals_rps": 12.5, "demand_rps": 60.0, "capacity_rps": 88.0}
CELL = {
    "state": "ready",
    "serving": False,
    "reasons": ["faces is not served"],
    "gateway": {"http": "127.0.0.1:8010"},
    "workers": [{}, {}],
    "graphs": {"traffic": GRAPH, "faces": {**GRAPH, "arrivals_rps": None}},
}
SERVER = {"cell": "cell1", "up": True, "reason": "", "planned_share": 0.5, "share": 1.0, "in_flight": 2}
FRONT = {
    "state": "unsupervised",
    "serving": True,
    "http": "0.0.0.0:8000",
    "grpc": "0.0.0.0:8001",
    "metrics": "http://0.0.0.0:8002/metrics",
    "graphs": {
        "traffic": [
            {**SERVER, "requests": {"http": 7, "grpc": 4}},
            {
                **SERVER,
                "cell": "cell2",
                "up": False,
                "reason": "L4CON",
                "share": 0.0,
                "requests": {"http": 0, "grpc": 0},
            },
        ]
    },
}


def texts(status: dict[str, object]) -> list[str]:
    return [part.plain() if isinstance(part, Table) else str(part) for part in cells_view(status)]


def test_each_graph_of_a_cell_has_a_row() -> None:
    table, reason = texts({"cells": {"cell1": CELL, "cell2": None}, "front": None})
    rows = [line.split() for line in table.splitlines()[1:]]
    assert rows[0] == ["cell1", "ready,", "not", "serving", "127.0.0.1:8010", "2", "traffic", "12.5", "60", "88"]
    assert rows[1] == ["faces", "-", "60", "88"]
    assert rows[2][:3] == ["cell2", "not", "deployed"]
    assert reason == "cell1: faces is not served"


def test_the_front_has_a_row_for_each_graph_and_cell() -> None:
    *_, head, warning, table = texts({"cells": {}, "front": FRONT})
    assert head == "front: unsupervised, http 0.0.0.0:8000, grpc 0.0.0.0:8001, http://0.0.0.0:8002/metrics"
    assert "weights and changes of the file are not followed" in warning
    rows = [line.split() for line in table.splitlines()[1:]]
    assert rows[0] == ["traffic", "cell1", "up", "50.0%", "100.0%", "11", "2"]
    assert rows[1][:4] == ["traffic", "cell2", "down", "(L4CON)"]
