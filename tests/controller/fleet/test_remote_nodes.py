"""The nodes of a cluster: which of them are asked when a plan is made, and when a controller adopts workers."""

import asyncio
import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.fleet import agent_calls, connection, placing, remote_nodes, succession
from jigsaw_triton.controller.fleet.agent_calls import AwayError
from jigsaw_triton.controller.fleet.remote_nodes import RemoteNodes
from jigsaw_triton.controller.persistence.epoch import EPOCH_FACT, number_of
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.controller.persistence.records import JournalEvent
from jigsaw_triton.errors import InputError, JigsawError, ServerError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.gateway import ServerImage
from jigsaw_triton.gpus.model import Agents, Gpu, GpuId, RayCluster
from jigsaw_triton.servers.engines.placement import Placed
from tests.fakes.node import CLUSTER, NODE, FakeMachine, fake_machine, model, worker

A = replace(CLUSTER, agents=Agents(((NODE, "127.0.0.1:1"),), "/certificates"))
B = Gpu(GpuId("b", 0), CATALOG["A100-80GB"])
BOTH = replace(A, gpus=(*A.gpus, B), agents=Agents(((NODE, "127.0.0.1:1"), ("b", "127.0.0.1:2")), "/certificates"))
ONLY_B = replace(BOTH, gpus=(B,), agents=Agents((("b", "127.0.0.1:2"),), "/certificates"))


class FakeSide:
    """A transport to one machine, which has node a. No other node can be called."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.nodes: set[str] = set()
        self.addresses: dict[str, str] = {}
        self.links: set[str] = set()
        self.first: dict[str, str] = {}
        self.epoch = ""

    async def set_epoch(self, epoch: str) -> None:
        self.epoch = epoch

    async def start(self, nodes: Iterable[Any], links: Iterable[Any], **_: Any) -> None:
        await self.set_nodes(nodes)
        self.first = {link.worker: link.incarnation for link in links}

    async def set_nodes(self, nodes: Iterable[Any]) -> None:
        given = {node.name: f"{node.host}:{node.port}" for node in nodes}
        self.nodes, self.addresses = set(given), given

    async def set_links(self, links: Iterable[Any]) -> None:
        self.links = {link.worker for link in links}

    def agent_socket(self, node: str) -> Path:
        return self._socket if node == NODE else self._socket.with_name("nobody.sock")

    async def reachable(self) -> frozenset[str]:
        return frozenset({NODE})

    async def health(self) -> dict[str, str]:
        return {NODE: "", "b": "does not answer"}

    async def stop(self) -> None:
        self.nodes = set()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives agents up at the first try."""
    monkeypatch.setattr(remote_nodes, "START_S", 0.0)


class World:
    """Controllers of one deployment, one after the other, and the machine of node a."""

    def __init__(self, folder: Path, machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine = machine
        self.side = FakeSide(machine.socket)
        self.events: list[e.Event] = []
        self._folder = folder
        self._opened: list[tuple[RemoteNodes, Journal]] = []
        monkeypatch.setattr(connection, "GatewaySide", lambda *_, **__: self.side)

    def controller(self) -> RemoteNodes:
        journal = Journal(self._folder / "controller.sqlite")
        nodes = RemoteNodes(Paths(self._folder, self._folder), journal, self.events.append)
        self._opened.append((nodes, journal))
        return nodes

    def recorded(self) -> tuple[JournalEvent, ...]:
        """Returns the events in the journal of the last controller."""
        with closing(JournalReader(self._folder / "controller.sqlite")) as journal:
            return journal.events()

    @property
    def journal(self) -> Journal:
        """Journal of the last controller."""
        return self._opened[-1][1]

    def close_journals(self) -> None:
        """Closes the journals of controllers that have stopped."""
        for _, journal in self._opened:
            journal.close()
        self._opened = []

    async def close(self) -> None:
        for nodes, _ in self._opened:
            await nodes.stop()
        self.close_journals()


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        async with fake_machine(folder) as machine:
            world = World(folder, machine, monkeypatch)
            try:
                await test(world)
            finally:
                await world.close()

    asyncio.run(main())


def test_what_an_agent_said_of_its_clock_long_ago_is_not_compared_with_the_present(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(world: World) -> None:
        nodes = world.controller()
        await nodes.serve_on(A)
        monkeypatch.setattr(remote_nodes, "time", SimpleNamespace(time=lambda: time.time() + 3600))
        await nodes.serve_on(A)

    run(run_dir, monkeypatch, test)


def test_a_node_that_never_answered_is_not_asked_once_it_has_left_the_cluster(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(world: World) -> None:
        nodes = world.controller()
        await nodes.serve_on(A)
        with pytest.raises(AwayError):
            await nodes.serve_on(BOTH)
        await nodes.serve_on(A)
        assert [gpu.id.node for gpu in (await nodes.survey(A)).gpus] == [NODE]
        assert await nodes.lost_gpus() == frozenset()

    run(run_dir, monkeypatch, test)


def test_plans_are_made_although_a_node_was_lost_when_its_workers_were_to_be_adopted(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_calls, "_CALL_S", 0.5)

    async def test(world: World) -> None:
        nodes = world.controller()
        await nodes.adopt(BOTH, {})
        await nodes.serve_on(BOTH)
        assert [gpu.id.node for gpu in (await nodes.survey(BOTH)).gpus] == [NODE]
        assert await nodes.lost_gpus() == {B.id}

    run(run_dir, monkeypatch, test)


def test_workers_on_a_node_that_has_left_the_cluster_are_adopted_and_can_be_ended(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = worker("a-0-1g-0", model("m"))

    async def test(world: World) -> None:
        first = world.controller()
        await first.serve_on(A)
        node = first.of(one.name, one)
        assert node is not None
        await node.bring_up(one)
        with suppress(AwayError):
            await first.serve_on(ONLY_B)
        await first.stop()
        second = world.controller()
        await second.adopt(ONLY_B, {one.name: one})
        assert world.side.links == {one.name}
        node = second.of(one.name, None)
        assert node is not None
        await node.retire(one.name)
        assert world.machine.node.workers == {}

    run(run_dir, monkeypatch, test)


def test_the_transport_of_the_next_controller_begins_with_the_links_of_the_one_before(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = worker("a-0-1g-0", model("m"))

    async def test(world: World) -> None:
        first = world.controller()
        await first.serve_on(A)
        node = first.of(one.name, one)
        assert node is not None and world.side.first == {}
        await node.bring_up(one)
        incarnation = node.running[one.name].incarnation
        second = world.controller()
        await second.adopt(A, {one.name: one})
        assert world.side.first == {one.name: incarnation}
        assert world.side.links == {one.name}

    run(run_dir, monkeypatch, test)


def test_a_new_node_that_does_not_answer_is_named_with_the_reason_that_the_transport_knows(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(({}, {NODE: "", "b": ""}, {NODE: "", "b": "shows a certificate of another node"}))

    async def health() -> dict[str, str]:
        return next(answers)

    async def test(world: World) -> None:
        monkeypatch.setattr(world.side, "health", health, raising=False)
        with pytest.raises(AwayError, match=r"127\.0\.0\.1:2 shows a certificate of another node") as caught:
            await world.controller().serve_on(BOTH)
        assert caught.value.where == "node b" and "jigsaw-triton agent" in caught.value.hint

    run(run_dir, monkeypatch, test)


def test_a_deployment_waits_for_an_agent_that_is_being_started(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_nodes, "START_S", 60.0)

    async def test(world: World) -> None:
        await world.machine.stop()
        deploying = asyncio.create_task(world.controller().serve_on(A))
        async with asyncio.timeout(30.0):
            while e.Noticed("node", "waiting for the agent of node a") not in world.events:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await world.machine.start()
        await deploying

    run(run_dir, monkeypatch, test)


def test_a_plan_waits_for_a_first_node_that_is_back_if_all_are_lost(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_nodes, "START_S", 60.0)
    monkeypatch.setattr(remote_nodes, "_FIRST_S", 0.0)

    async def test(world: World) -> None:
        await world.machine.stop()
        nodes = world.controller()
        await nodes.adopt(A, {})
        assert await nodes.lost_gpus() == {gpu.id for gpu in A.gpus}
        surveying = asyncio.create_task(nodes.survey(A))
        await world.machine.start()
        assert [gpu.id for gpu in (await surveying).gpus] == [gpu.id for gpu in A.gpus]

    run(run_dir, monkeypatch, test)


BY_RAY = replace(A, agents=Agents(((NODE, ""),), "", RayCluster()))
BOTH_BY_RAY = replace(BOTH, agents=Agents(((NODE, ""), ("b", "")), "", RayCluster()))


class FakeEngine:
    """Ray, which has started the agents of these nodes."""

    def __init__(self, **addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[set[str]] = []
        self.trouble: list[Exception] = []
        self.left: tuple[JigsawError, ...] = ()
        self.removed = False

    async def certificates(self, agents: Agents) -> Path:
        return Path("/own/controller")

    async def place(self, agents: Agents, nodes: set[str]) -> Placed:
        self.asked.append(set(nodes))
        errors = {node: InputError("no raylet") for node in nodes if node not in self.addresses}
        return Placed({node: self.addresses[node] for node in nodes if node in self.addresses}, errors)

    async def outdated(self) -> set[str]:
        if self.trouble:
            raise self.trouble.pop()
        return set()

    async def remove(self) -> tuple[JigsawError, ...]:
        self.removed = True
        return self.left


def by(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "RayEngine", lambda *_: engine)


async def until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.01)


def test_ray_starts_agents_once_and_has_their_addresses(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(a="10.0.0.1:7440")
    by(engine, monkeypatch)

    async def test(world: World) -> None:
        nodes = world.controller()
        await nodes.serve_on(BY_RAY)
        await nodes.serve_on(BY_RAY)
        assert engine.asked == [{NODE}]
        assert (world.side.addresses, nodes.addresses) == ({NODE: "10.0.0.1:7440"},) * 2
        with pytest.raises(InputError, match="no raylet"):
            await nodes.serve_on(BOTH_BY_RAY)
        await nodes.serve_on(BY_RAY)
        assert world.side.nodes == {NODE}

    run(run_dir, monkeypatch, test)


def test_a_controller_with_an_old_copy_of_the_journal_begins_a_later_epoch_than_the_agents_know(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(succession, "COMMANDED_S", 0.2)
    copy = run_dir / "copy.sqlite"

    async def test(world: World) -> None:
        first = world.controller()
        await first.serve_on(A)
        await first.stop()
        world.close_journals()
        shutil.copy(run_dir / "controller.sqlite", copy)
        for _ in range(3):
            later = world.controller()
            await later.serve_on(A)
            await later.stop()
            world.close_journals()
        shutil.copy(copy, run_dir / "controller.sqlite")
        with closing(sqlite3.connect(copy)) as file:
            ((old,),) = file.execute("SELECT value FROM facts WHERE name = 'epoch'").fetchall()
        recovered = world.controller()
        await recovered.serve_on(A)
        assert await recovered.lost_gpus() == frozenset()
        assert number_of(old) + 3 < world.journal.epoch == number_of(world.side.epoch)
        with closing(JournalReader(run_dir / "controller.sqlite")) as reader:
            assert number_of(reader.fact(EPOCH_FACT)) == world.journal.epoch

    run(run_dir, monkeypatch, test)


def test_a_change_of_the_epoch_that_fails_is_completed_later(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    async def test(world: World) -> None:
        nodes = world.controller()

        async def fail_once() -> None:
            tries.append(nodes.epoch)
            if len(tries) == 1:
                raise OSError("the disk is full")

        await nodes.serve_on(A)
        nodes.on_surpass = fail_once
        with pytest.raises(OSError, match="the disk is full"):
            await nodes.surpass(world.journal.epoch + 5)
        for _ in range(2):
            await nodes.renew_epoch()
        assert tries == 2 * [nodes.epoch] and world.side.epoch == nodes.epoch

    run(run_dir, monkeypatch, test)


def test_the_next_controller_needs_no_ray(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(a="10.0.0.1:7440")
    by(engine, monkeypatch)
    one = worker("a-0-1g-0", model("m"))

    async def test(world: World) -> None:
        first = world.controller()
        await first.serve_on(BY_RAY)
        node = first.of(one.name, one)
        assert node is not None
        await node.bring_up(one)
        # It has died, and so ends no agent.
        monkeypatch.setattr(first, "_placing", None)
        second = world.controller()
        await second.adopt(BY_RAY, {one.name: one})
        await second.serve_on(BY_RAY)
        assert engine.asked == [{NODE}]
        assert second.addresses == {NODE: "10.0.0.1:7440"}

    run(run_dir, monkeypatch, test)


def test_the_tritonserver_of_workers_in_containers_is_that_of_their_image(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(world: World) -> None:
        nodes = world.controller()
        await nodes.serve_on(replace(A, image=ServerImage("triton:25.08")))
        assert nodes.version == "25.08" and nodes.backends == {"onnxruntime"}
        assert world.events == []

    run(run_dir, monkeypatch, test)


def test_an_agent_that_does_not_answer_is_placed_again_and_followed_to_its_new_address(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine(a="10.0.0.1:7440")
    by(engine, monkeypatch)
    monkeypatch.setattr(placing, "_PLACE_S", 0.02)
    monkeypatch.setattr(placing, "AWAY_S", 0.2)

    async def test(world: World) -> None:
        await world.controller().serve_on(BY_RAY)
        engine.trouble = [OSError("no more processes")]
        await until(lambda: not engine.trouble)
        await world.machine.cut()
        await until(lambda: len(engine.asked) > 1)
        engine.addresses = {NODE: "10.0.0.9:7440"}
        await until(lambda: world.side.addresses == {NODE: "10.0.0.9:7440"})
        await world.machine.reach()

    run(run_dir, monkeypatch, test)


def test_an_agent_of_a_node_that_has_left_the_cluster_is_not_placed_again(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine(a="10.0.0.1:7440", b="10.0.0.2:7440")
    by(engine, monkeypatch)
    monkeypatch.setattr(placing, "_PLACE_S", 0.02)

    async def test(world: World) -> None:
        nodes = world.controller()
        await nodes.serve_on(BY_RAY)
        # It has left while its machine was away.
        agents = nodes._connection.agents
        assert agents is not None
        await nodes._connect(replace(agents, addresses=(*agents.addresses, ("b", "10.0.0.2:7440"))))
        monkeypatch.setattr(placing, "AWAY_S", 0.0)
        await until(lambda: len(engine.asked) > 2)
        assert engine.asked == [{NODE}] * len(engine.asked)

    run(run_dir, monkeypatch, test)


def test_agents_that_have_started_end_although_another_one_has_not(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by(FakeEngine(a="10.0.0.1:7440"), monkeypatch)

    async def test(world: World) -> None:
        nodes = world.controller()
        with pytest.raises(InputError, match="no raylet"):
            await nodes.serve_on(BOTH_BY_RAY)
        await nodes.stop()
        await until(lambda: world.machine.ended)

    run(run_dir, monkeypatch, test)


def test_the_end_of_a_deployment_ends_the_agents_that_ray_has_started(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine(a="10.0.0.1:7440")
    by(engine, monkeypatch)

    async def test(world: World) -> None:
        nodes = world.controller()
        await nodes.serve_on(BY_RAY)
        engine.left = (ServerError("the cluster does not answer", where="Ray"),)
        await nodes.stop()
        assert engine.removed
        await until(lambda: world.machine.ended)
        texts = {event.text for event in world.recorded()}
        assert "not everything has ended: Ray: the cluster does not answer" in texts

    run(run_dir, monkeypatch, test)
