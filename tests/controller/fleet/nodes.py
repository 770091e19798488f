"""Controllers of one deployment over two nodes with agents: node a is a `FakeMachine`, and node b does not answer."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.compiler.bundle import Worker
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.fleet import connection
from jigsaw_triton.controller.fleet.remote_node import RemoteNode
from jigsaw_triton.controller.fleet.remote_nodes import RemoteNodes
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.controller.persistence.records import JournalEvent
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Agents, Gpu, GpuId
from tests.fakes.node import CLUSTER, NODE, FakeMachine, fake_machine

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

    async def bring_up(self, nodes: RemoteNodes, one: Worker) -> RemoteNode:
        """Brings up a worker as this controller does. Returns its node."""
        node = nodes.of(one.name, one)
        assert node is not None
        await node.bring_up(one)
        return node

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
