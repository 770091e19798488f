"""A front with a real HAProxy over stand-ins of gateways."""

import json
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.api.fronts import FrontFile
from jigsaw_triton.errors import StateError
from jigsaw_triton.servers.ports import check_free
from tests.e2e.system import free_ports
from tests.front.world import FrontProcess, Gateway, nearly

pytestmark = pytest.mark.slow


class World:
    """Two cells, a standby gateway of the second one, and a front.

    Args:
        folder: Folder of the front.
    """

    def __init__(self, folder: Path) -> None:
        # All at once, so that no port is chosen twice.
        ports = free_ports(9)
        self.cell1, self.cell2, self.standby = map(Gateway, ("cell1", "cell2", "standby"), ports[:3])
        self.gateways = (self.cell1, self.cell2, self.standby)
        self._grpc = dict(zip(self.gateways, ports[3:6], strict=True))
        self.front = FrontProcess(folder, ports[6:])

    def entry(self, gateway: Gateway, **more: Any) -> dict[str, Any]:
        """Returns the addresses of a gateway in front.yaml."""
        address = {"http": f"127.0.0.1:{gateway.port}", "grpc": f"127.0.0.1:{self._grpc[gateway]}"}
        return {**address, "metrics": f"127.0.0.1:{gateway.port}", **more}

    def write(self, first: float = 3, second: float = 1) -> None:
        """Writes front.yaml with weights for the two cells."""
        standby = self.entry(self.standby)
        del standby["metrics"]
        self.front.write(
            [
                self.entry(self.cell1, name="cell1", weights={"traffic": first}),
                self.entry(self.cell2, name="cell2", weights={"traffic": second}, standby=standby),
            ]
        )

    def wait_state(self, cell: str, *, up: bool) -> None:
        """Waits until the front has found that a cell is up, or down."""
        self.front.wait(lambda: self.front.status()[cell]["up"] is up)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("front"))
    made.write()
    for gateway in made.gateways:
        gateway.start()
    try:
        made.front.start()
        yield made
    finally:
        if made.front.runs:
            made.front.end(signal.SIGTERM)
        for gateway in made.gateways:
            gateway.stop()


@pytest.fixture
def world(running: World) -> Iterator[World]:
    """Restores the cells after a test."""
    yield running
    for gateway in running.gateways:
        gateway.stop()
        gateway.start()
        gateway.ready, gateway.capacity_rps = {"traffic"}, None
    running.write()
    for name in ("cell1", "cell2", "cell2.standby"):
        running.wait_state(name, up=True)
    running.front.wait(lambda: nearly(running.front.ask(80), cell1=60, cell2=20))


def test_requests_of_one_connection_are_balanced_by_weights(world: World) -> None:
    assert nearly(world.front.undisturbed(lambda: world.front.ask(80)), cell1=60, cell2=20)


def test_a_cell_that_has_the_model_not_ready_gets_no_request(world: World) -> None:
    world.cell1.ready.clear()
    world.wait_state("cell1", up=False)
    assert world.front.undisturbed(lambda: world.front.ask(20)) == Counter(cell2=20)
    world.cell2.ready.clear()
    world.standby.ready.clear()
    for name in ("cell2", "cell2.standby"):
        world.wait_state(name, up=False)
    (answer,) = world.front.ask()
    assert answer == '503 {"error": "no cell has this model ready"}'
    result = world.front.run("--status")
    assert result.returncode == 4 and "not serving" in result.stdout


def test_no_request_fails_that_is_sent_after_a_gateway_has_ended(world: World) -> None:
    def experiment() -> Counter[str]:
        world.cell1.stop()
        world.cell1.start()
        world.wait_state("cell1", up=True)
        world.cell1.stop()
        return world.front.ask(40)

    assert world.front.undisturbed(experiment).keys() <= {"cell2", "standby"}


def test_a_standby_gateway_serves_in_place_of_its_cell(world: World) -> None:
    assert "standby" not in world.front.undisturbed(lambda: world.front.ask(40))
    world.cell2.stop()
    world.front.wait(lambda: nearly(world.front.ask(40), cell1=30, standby=10))


def test_a_standby_gateway_serves_at_once_if_no_cell_is_left(world: World) -> None:
    def experiment() -> Counter[str]:
        for gateway in (world.cell1, world.cell2):
            gateway.stop()
        return world.front.ask(20)

    assert world.front.undisturbed(experiment) == Counter(standby=20)


def test_a_cell_that_carries_less_than_its_share_gets_less(world: World) -> None:
    for gateway in (world.cell1, world.cell2):
        gateway.capacity_rps = 1e6
    world.cell1.capacity_rps = 1.0
    world.front.wait(lambda: world.front.status()["cell1"]["share"] < 0.2)
    world.cell1.capacity_rps = 1e6
    world.front.wait(lambda: world.front.status()["cell1"]["share"] > 0.7)


def test_an_unknown_model_is_for_a_cell_to_refuse(world: World) -> None:
    (answer,) = world.front.ask(model="unknown")
    assert answer in ("404 cell1 has no unknown", "404 cell2 has no unknown")


def test_statistics_are_those_of_one_cell(world: World) -> None:
    assert world.front.undisturbed(lambda: world.front.ask(20, call="stats")) == Counter(cell1=20)


def under_load(world: World, change: Callable[[], None]) -> Counter[str]:
    """Returns the answers to requests that are sent all the time during a change."""

    def experiment() -> Counter[str]:
        ends = threading.Event()
        answers: Counter[str] = Counter()

        def load() -> None:
            while not ends.is_set():
                answers.update(world.front.ask(5))

        thread = threading.Thread(target=load)
        thread.start()
        try:
            change()
        finally:
            ends.set()
            thread.join()
        return answers

    return world.front.undisturbed(experiment)


def test_a_changed_file_is_taken_over_without_a_failed_request(world: World) -> None:
    def change() -> None:
        world.write(first=0, second=1)
        world.front.wait(lambda: world.front.ask(20) == Counter(cell2=20))
        world.write(first=1, second=1)
        world.front.wait(lambda: nearly(world.front.ask(20), cell1=10, cell2=10))

    assert under_load(world, change).keys() <= {"cell1", "cell2"}


def test_a_cell_that_is_down_gets_no_request_after_a_reload(world: World) -> None:
    world.cell1.ready.clear()
    world.wait_state("cell1", up=False)
    weights = count(2)

    def change() -> None:
        reloads = world.front.log().count("has reloaded its changed files")
        world.write(first=next(weights), second=1)
        world.front.wait(lambda: world.front.log().count("has reloaded its changed files") > reloads)

    assert under_load(world, change).keys() == {"cell2"}


def test_a_gateway_that_has_another_port_now_gets_its_requests_there(world: World) -> None:
    other, free = Gateway("other", free_ports(1)[0]), world.cell1.port
    other.start()
    try:
        world.cell1.port = other.port
        world.write()
        world.front.wait(lambda: nearly(world.front.ask(40), other=30, cell2=10))
    finally:
        world.cell1.port = free
        other.stop()


def test_a_wrong_file_is_reported_and_changes_nothing(world: World) -> None:
    world.write(first=-1)
    world.front.wait(lambda: "keeps its previous files" in world.front.log())
    assert "spec.cells[0].weights.traffic is -1" in world.front.log()
    assert nearly(world.front.undisturbed(lambda: world.front.ask(80)), cell1=60, cell2=20)


def test_a_second_front_in_the_same_folder_is_refused(world: World) -> None:
    with pytest.raises(StateError, match="a front, or the controller of a deployment, is already running here"):
        FrontFile(world.front.file).run()


def test_haproxy_outlives_its_front_and_the_next_front_goes_on_with_it(world: World) -> None:
    def change() -> None:
        world.front.end(signal.SIGKILL)
        assert FrontFile(world.front.file).status()["state"] == "unsupervised"
        world.front.start()
        assert FrontFile(world.front.file).status()["state"] == "ready"

    assert under_load(world, change).keys() <= {"cell1", "cell2"}


RESOLVING = """
import sys
from pathlib import Path
from jigsaw_triton.cli.main import main
from jigsaw_triton.front import process
from jigsaw_triton.servers import names
answer = Path(sys.argv.pop(1))
process._NAMES_S = 0.1
names.resolve = lambda host: frozenset(answer.read_text().split())
main()
"""
"""Program like jigsaw-triton, in which a file has the address of all hosts."""


def test_the_address_of_a_gateway_is_followed_and_an_unknown_one_stops_no_start(tmp_path: Path) -> None:
    port, *ports = free_ports(6)
    first, second = (Gateway(name, port, f"127.0.0.{n}") for n, name in enumerate(("first", "second"), start=1))
    front = FrontProcess(tmp_path, ports[:3])
    address = tmp_path / "address"
    address.write_text("")
    at = {"http": f"gateway.example:{port}", "grpc": f"gateway.example:{ports[3]}"}
    front.write([{"name": "cell1", **at, "weights": {"traffic": 1}}])
    for gateway in (first, second):
        gateway.start()
    try:
        front.start("--log-format", "json", command=(sys.executable, "-c", RESOLVING, str(address)))
        front.wait(lambda: "no address is known for gateway.example" in front.log())
        assert not front.status()["cell1"]["up"]
        for text, answer in (("127.0.0.1", "first"), ("127.0.0.2", "second")):
            address.write_text(text)
            front.wait(lambda answer=answer: front.ask() == Counter([answer]))  # type: ignore[misc]
        # The next front goes on with the address, although the name is unknown then.
        front.end(signal.SIGKILL)
        address.write_text("")
        front.start(command=(sys.executable, "-c", RESOLVING, str(address)))
        front.wait(lambda: front.ask() == Counter(["second"]))
    finally:
        if front.runs:
            front.end(signal.SIGTERM)
        for gateway in (first, second):
            gateway.stop()


def test_a_signal_ends_the_front_and_haproxy(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.write()
    world.front.start("--log-format", "json")
    assert world.front.end(signal.SIGTERM) == 0
    assert {"INFO"} <= {json.loads(line)["level"] for line in world.front.log().splitlines()}
    check_free("127.0.0.1", world.front.http)
    with pytest.raises(StateError, match="no front is running here"):
        FrontFile(world.front.file).status()
