"""Two cells with real tritonservers behind a front, and clients that send requests to the front all the time."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jigsaw_triton.servers.installation import Installation
from tests.e2e.app import write_application
from tests.e2e.cells import FrontedCells
from tests.e2e.clients import Client, Crowd
from tests.e2e.system import System

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory, installation: Installation) -> Iterator[FrontedCells]:
    """Two cells that serve the application of the tests, and the front over them."""
    made = FrontedCells(tmp_path_factory.mktemp("cells"))
    try:
        made.create(write_application(made.root / "app"), 80)
        made.deploy()
        made.front.start()
        yield made
    finally:
        made.end()


def fronted(cells: FrontedCells) -> System:
    """Returns the front in the place of a deployment, for clients."""
    return cast(System, SimpleNamespace(http=cells.front.http, grpc=cells.front.grpc))


def arrivals(cells: FrontedCells) -> dict[str, float]:
    return {name: system.metric("jigsaw_arrivals_total", graph="words") for name, system in cells.systems.items()}


def front_state(cells: FrontedCells) -> dict[str, Any]:
    return cells.front.status("words")


def wrong(crowd: Crowd) -> list[str]:
    """Returns the wrong answers, without requests that failed."""
    return [text for text in crowd.failures if "became" in text]


def test_each_protocol_reaches_both_cells(cells: FrontedCells) -> None:
    for protocol in ("http", "grpc"):
        with Client(fronted(cells), protocol) as client:
            assert client.triton.is_server_ready() and client.triton.is_model_ready("words")
            assert client.triton.get_model_metadata("words")

            def both(client: Client = client, protocol: str = protocol) -> bool:
                assert client.squares([7, 3]) == ([49, 9], 58)
                return all(cell["requests"][protocol] > 2 for cell in front_state(cells).values())

            cells.front.wait(both)


def test_the_status_shows_cells_and_front(cells: FrontedCells) -> None:
    document = json.loads(cells.run("cells", "status", cells.folder, "-o", "json"))
    assert {name: cell["state"] for name, cell in document["cells"].items()} == {"cell1": "ready", "cell2": "ready"}
    assert document["front"]["state"] == "ready" and document["serving"]


def test_a_killed_cell_is_replaced_by_the_other_one_and_returns(cells: FrontedCells) -> None:
    with Crowd(fronted(cells)) as crowd:
        cells.kill("cell2")
        cells.front.wait(lambda: not front_state(cells)["cell2"]["up"])
        crowd.wait_answers(20)
    # Requests that were in progress there may fail.
    assert wrong(crowd) == []
    with Crowd(fronted(cells)) as crowd:
        crowd.wait_answers(20)
        cells.deploy("--cell", "cell2")
        cells.front.wait(lambda: front_state(cells)["cell2"]["up"])
        before = arrivals(cells)["cell2"]
        cells.front.wait(lambda: arrivals(cells)["cell2"] > before)
        crowd.wait_answers(20)
    # On a busy machine a gateway may be too slow for its health checks, and requests are then refused.
    assert wrong(crowd) == []


def test_cells_are_taken_down_together(cells: FrontedCells) -> None:
    assert cells.run("cells", "down", cells.folder) == "cell1 and cell2 are stopped\n"
    assert [system.orphans() for system in cells.systems.values()] == [[], []]
