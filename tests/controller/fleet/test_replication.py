"""The standby gateway follows the gateway whatever happens to its agent; changes wait for it only while it does."""

import asyncio
import errno
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest

from jigsaw_triton.compiler.bundle import ModelFolder, RouteEntry
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.fleet import following, remote_node, replication
from jigsaw_triton.controller.fleet.agent_calls import AgentCalls
from jigsaw_triton.controller.fleet.gateway_content import RemoteWorker
from jigsaw_triton.controller.fleet.remote_node import RemoteNode
from jigsaw_triton.controller.fleet.remote_nodes import RemoteNodes
from jigsaw_triton.controller.fleet.replication import Replication
from jigsaw_triton.controller.fleet.succession import Succession
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.gateway import StandbyGateway
from tests.controller.worlds import GRAPH
from tests.fakes.node import CLUSTER, NODE, FakeMachine, fake_machine
from tests.waiting import WAIT_LIMIT_S, until

STANDBY = replace(CLUSTER, standby_gateway=StandbyGateway(NODE, "127.0.0.2"))
ONE = Actual(
    gateway=True,
    fronts={"g": ModelFolder("g", {"config.pbtxt": b"front"})},
    routes={"g.t.g1": (RouteEntry("w", "m", 8, 1),)},
)
GRAPHS = {"g": GRAPH}
TWO = replace(ONE, routes={"g.t.g2": (RouteEntry("w", "n", 8, 1),)})


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes looks and retries frequent, and a node count as lost sooner."""
    for name, value in (("_LOOK_S", 0.05), ("_RETRY_S", 0.05), ("_APPLIED_S", 0.02), ("_POLL_S", 0.01)):
        monkeypatch.setattr(replication, name, value)
    for module in (remote_node, following):
        monkeypatch.setattr(module, "AWAY_S", 0.5)
        monkeypatch.setattr(module, "PULSE_S", 0.05)
        monkeypatch.setattr(module, "RETRY_S", 0.02)


@dataclass
class Nodes:
    """The nodes of a cluster: one, and the workers that run there."""

    node: RemoteNode
    epoch: str = "1.a"
    workers: tuple[RemoteWorker, ...] = ()
    addresses: dict[str, str] = field(default_factory=lambda: {NODE: "127.0.0.1:1"})
    on_change: Callable[[], None] = lambda: None

    def get(self, name: str) -> RemoteNode | None:
        return self.node if name == NODE else None

    def remote_workers(self) -> tuple[RemoteWorker, ...]:
        return self.workers

    def digest(self, path: Path) -> str:
        return sha256(path.read_bytes()).hexdigest()


@dataclass
class Standby:
    """A gateway's standby on a machine."""

    machine: FakeMachine
    nodes: Nodes
    replication: Replication
    events: list[e.Event]
    copies: list[bytes]

    def routes(self) -> list[str]:
        """Returns the names of the routes of each order that was carried out."""
        found = [order["routes"] if order is not None else [] for order in self.machine.gateway.orders]
        return [" ".join(name for name, _ in one) for one in found]

    def said(self, text: str) -> int:
        """Returns the number of events with a text."""
        return sum(text in str(event) for event in self.events)


@contextmanager
def full_disk(most_bytes: int = 0) -> Iterator[None]:
    """Fills the disk of the node, so that no file of more bytes than these arrives."""

    def fsync(file: int) -> None:
        if os.fstat(file).st_size > most_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


async def _reachable() -> bool:
    return False


async def _nothing() -> None:
    pass


async def _surpass(_: int) -> None:
    raise AssertionError("no other controller has commanded the node")


def run(folder: Path, test: Callable[[Standby], Awaitable[None]]) -> None:
    async def main() -> None:
        async with fake_machine(folder) as machine:
            events: list[e.Event] = []
            calls = AgentCalls(NODE, machine.socket, "d", lambda: "1.a", folder)
            notify: Any = events.append
            succession = Succession("d", calls.epoch, tuple, _surpass, lambda _: None)
            nodes = Nodes(RemoteNode(NODE, calls, lambda _: "", notify, _reachable, _nothing, succession))
            copies = [b"state"]
            found = Replication(cast(RemoteNodes, nodes), events.append, lambda: copies[-1])
            try:
                await nodes.node.serve_on(STANDBY)
                await found.serve_on(STANDBY)
                found.follow(ONE, GRAPHS)
                await until(lambda: found.in_sync)
                await test(Standby(machine, nodes, found, events, copies))
            finally:
                await found.stop()
                await nodes.node.stop()

    asyncio.run(main())


def test_the_standby_follows_each_change(run_dir: Path) -> None:
    async def test(standby: Standby) -> None:
        began_s = time.time() - 1.0
        standby.replication.follow(TWO, GRAPHS)
        assert not standby.replication.in_sync
        await until(lambda: standby.replication.in_sync)
        assert standby.routes() == ["g.t.g1", "g.t.g2"]
        # An equal state does not cause another order.
        standby.replication.follow(replace(TWO), GRAPHS)
        await until(lambda: standby.replication.in_sync)
        assert standby.routes() == ["g.t.g1", "g.t.g2"]
        status = standby.replication.status()
        assert status is not None
        assert (status["node"], status["state"], status["http"]) == (NODE, "ready", "127.0.0.2:8000")
        assert status["in_line"] and status["since"] > began_s

    run(run_dir, test)


def test_the_state_with_another_generation_is_copied_at_once(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "_COPY_S", 1e9)

    async def test(standby: Standby) -> None:
        standby.copies.append(b"later")
        standby.replication.follow(TWO, GRAPHS)
        await until(lambda: standby.replication.in_sync)
        standby.replication.follow(TWO, GRAPHS, 2)
        assert not standby.replication.in_sync
        await until(lambda: standby.replication.in_sync)
        states = [order["state"] for order in standby.machine.gateway.orders if order is not None]
        assert states == [sha256(copy).hexdigest() for copy in (b"state", b"state", b"later")]

    run(run_dir, test)


def test_the_next_controllers_files_are_sent_once_the_standby_serves(run_dir: Path) -> None:
    text = b"weights"
    name = sha256(text).hexdigest()
    (run_dir / name).write_bytes(text)

    async def test(standby: Standby) -> None:
        graphs = {"g": replace(GRAPH, samples={"X": Path(name)})}
        standby.replication.follow(TWO, graphs, 2)
        await until(lambda: standby.replication.in_sync)
        order = standby.machine.gateway.orders[-1]
        assert order is not None and order["copies"] == [name]
        assert (standby.machine.folder / "contents" / name).read_bytes() == text

    run(run_dir, test)


def test_a_full_disk_of_the_node_is_reported_once_and_the_standby_follows_when_there_is_space(run_dir: Path) -> None:
    async def test(standby: Standby) -> None:
        with full_disk():
            standby.copies.append(b"later")
            standby.replication.follow(TWO, GRAPHS, 2)
            await until(lambda: standby.machine.transfers > 3)
            assert not standby.replication.in_sync
            status = standby.replication.status()
            assert status is not None
            assert status["failure"].startswith(f"node {NODE}, {standby.machine.folder}/contents: ")
        await until(lambda: standby.said("the standby gateway is in sync again"))
        assert standby.said("the disk is full; free some space on this node") == 1
        assert standby.routes() == ["g.t.g1", "g.t.g2"]
        status = standby.replication.status()
        assert status is not None and status["in_line"] and not status["failure"]

    run(run_dir, test)


def never_sent_again(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Returns graphs with a large file, which is not sent a second time within the test."""
    monkeypatch.setattr(replication, "_RETRY_S", 1e9)
    monkeypatch.setattr(replication, "_MOST_RETRY_S", 1e9)
    text = b"weights" * 1000
    name = sha256(text).hexdigest()
    (run_dir / name).write_bytes(text)
    return {"g": replace(GRAPH, samples={"X": Path(name)})}


def test_large_files_are_not_sent_again_with_each_change_while_the_disk_of_the_node_is_full(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = never_sent_again(run_dir, monkeypatch)

    async def test(standby: Standby) -> None:
        with full_disk(1000):
            standby.replication.follow(TWO, graphs, 2)
            await until(lambda: standby.said("the disk is full"))
            sent = standby.machine.transfers
            standby.replication.follow(ONE, graphs, 2)
            await until(lambda: standby.routes() == ["g.t.g1", "g.t.g2", "g.t.g1"])
            # The standby serves, but a takeover would lack a file.
            await asyncio.wait_for(standby.replication.wait_followed(WAIT_LIMIT_S), WAIT_LIMIT_S)
            assert not standby.replication.in_sync
        assert standby.machine.transfers == sent

    run(run_dir, test)


def test_another_standby_does_not_wait_for_the_retry_of_the_one_before(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = never_sent_again(run_dir, monkeypatch)

    async def test(standby: Standby) -> None:
        with full_disk(1000):
            standby.replication.follow(TWO, graphs, 2)
            await until(lambda: standby.said("the disk is full"))
        await standby.replication.serve_on(CLUSTER)
        await standby.replication.serve_on(STANDBY)
        status = standby.replication.status()
        assert status is not None and not status["failure"]
        await until(lambda: standby.replication.in_sync)

    run(run_dir, test)


def test_the_standby_gateway_learns_of_workers_that_begin(run_dir: Path) -> None:
    async def test(standby: Standby) -> None:
        standby.nodes.workers = (RemoteWorker("w", NODE, "7"),)
        standby.nodes.on_change()
        await until(lambda: len(standby.machine.gateway.orders) == 2)
        order = standby.machine.gateway.orders[-1]
        assert order is not None and order["workers"] == [{"name": "w", "node": NODE, "incarnation": "7"}]

    run(run_dir, test)


def test_an_agent_that_has_forgotten_its_order_gets_it_again(run_dir: Path) -> None:
    async def test(standby: Standby) -> None:
        standby.machine.gateway.forget()
        await until(lambda: standby.routes() == ["g.t.g1", "g.t.g1"])

    run(run_dir, test)


def test_a_change_waits_until_the_standby_has_followed_and_uses_nothing_that_goes(run_dir: Path) -> None:
    async def test(standby: Standby) -> None:
        standby.machine.gateway.follows, standby.machine.gateway.busy = False, True
        standby.replication.follow(TWO, GRAPHS)
        waiting = asyncio.create_task(standby.replication.unused(models=[("w", "m")], generations=[("g", 1)]))
        await until(lambda: standby.machine.gateway._order[1] == 2)
        assert not waiting.done() and standby.machine.gateway.asked == []
        standby.machine.gateway.follows = True
        standby.machine.gateway.catch_up()
        await until(lambda: standby.machine.gateway.asked != [])
        assert standby.machine.gateway.asked[0] == ([("w", "m")], [("g", 1)])
        assert not waiting.done()
        standby.machine.gateway.busy = False
        await asyncio.wait_for(waiting, WAIT_LIMIT_S)

    run(run_dir, test)


def test_a_standby_that_does_not_follow_delays_a_change_once(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "_BEHIND_S", 0.3)

    async def test(standby: Standby) -> None:
        standby.machine.gateway.follows = False
        standby.replication.follow(TWO, GRAPHS)
        await asyncio.wait_for(standby.replication.unused(models=[("w", "m")]), WAIT_LIMIT_S)
        assert standby.said("does not follow; changes go on without it")
        monkeypatch.setattr(replication, "_BEHIND_S", 1e9)
        await asyncio.wait_for(standby.replication.unused(models=[("w", "m")]), WAIT_LIMIT_S)
        standby.machine.gateway.follows = True
        standby.machine.gateway.catch_up()
        await until(lambda: standby.said("follows again"))

    run(run_dir, test)


@pytest.mark.slow
def test_a_standby_whose_agent_does_not_answer_fails_no_change(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "_DRAIN_S", 0.3)

    async def test(standby: Standby) -> None:
        async def reachable() -> bool:
            return True

        monkeypatch.setattr(standby.nodes.node._following, "_reachable", reachable)
        await standby.machine.cut()
        await asyncio.wait_for(standby.replication.unused(models=[("w", "m")]), WAIT_LIMIT_S)
        assert standby.said("does not follow; changes go on without it")
        await standby.machine.reach()
        await until(lambda: standby.said("follows again"))
        standby.machine.gateway.busy = True
        with pytest.raises(ServerError, match=r"calls are still in flight after 0\.3 s"):
            await standby.replication.unused(models=[("w", "m")])

    run(run_dir, test)


@pytest.mark.slow
def test_a_change_does_not_wait_for_a_lost_machine_which_follows_once_it_is_back(run_dir: Path) -> None:
    async def test(standby: Standby) -> None:
        await standby.machine.cut()
        standby.replication.follow(TWO, GRAPHS)
        await asyncio.wait_for(standby.replication.unused(models=[("w", "m")]), WAIT_LIMIT_S)
        await until(lambda: standby.nodes.node.away)
        status = standby.replication.status()
        assert status is not None and (status["state"], status["in_line"]) == ("lost", False)
        assert standby.replication.status() == status
        await standby.machine.reach()
        await until(lambda: standby.routes()[-1] == "g.t.g2")

    run(run_dir, test)


def test_a_standby_that_the_cluster_no_longer_has_ends(run_dir: Path) -> None:
    async def test(standby: Standby) -> None:
        await standby.replication.serve_on(CLUSTER)
        assert standby.machine.gateway.orders[-1] is None and standby.replication.status() is None

    run(run_dir, test)


def test_the_standby_ends_with_the_gateway(run_dir: Path) -> None:
    async def test(standby: Standby) -> None:
        await standby.replication.end()
        assert standby.machine.gateway.orders[-1] is None

    run(run_dir, test)


def test_a_standby_that_ends_is_not_started_again_by_a_change_that_ends_meanwhile(run_dir: Path) -> None:
    async def test(standby: Standby) -> None:
        gateway = standby.machine.gateway
        gateway.follows = False
        ending = asyncio.create_task(standby.replication.end())
        await until(lambda: gateway._order[1] == 2)
        standby.replication.follow(TWO, GRAPHS)
        await asyncio.sleep(0.2)
        assert not ending.done() and not gateway.exists
        gateway.follows = True
        gateway.catch_up()
        await asyncio.wait_for(ending, WAIT_LIMIT_S)
        # The next gateway gets a standby again.
        standby.replication.follow(Actual(), GRAPHS)
        standby.replication.follow(ONE, GRAPHS)
        await until(lambda: standby.replication.in_sync and gateway.exists)

    run(run_dir, test)


def test_a_standby_that_cannot_be_ended_is_reported(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "_END_S", 0.3)

    async def test(standby: Standby) -> None:
        await standby.machine.cut()
        await standby.replication.end()
        assert standby.said("has not ended; its agent ends it at the next deploy")

    run(run_dir, test)
