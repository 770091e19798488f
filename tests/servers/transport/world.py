"""A gateway and nodes, joined by both sides of the transport: real HAProxies, the backend's core, fake workers."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from jigsaw_triton.servers.certificates.authority import create_authority, issue
from jigsaw_triton.servers.certificates.credentials import CONTROLLER, Credentials, credentials_in
from jigsaw_triton.servers.transport.config import Link, Node
from jigsaw_triton.servers.transport.gateway_side import GatewaySide
from jigsaw_triton.servers.transport.node_side import NodeSide
from tests.e2e.system import free_ports
from tests.native import specs
from tests.native.conftest import column, double
from tests.native.core import Engine, Front
from tests.native.worker import Handler, Worker
from tests.waiting import WAIT_LIMIT_S, until

Events = list[tuple[str, str]]


def make_credentials(folder: Path, node: str, *, authority: str = "ca") -> Credentials:
    """Issues the certificate of a node by the authority of this name, which is created if there is none."""
    if not (folder / authority).exists():
        create_authority(folder / authority, authority)
    return credentials_in(issue(folder / authority, node, ["127.0.0.1"]).path.parent)


class Machine:
    """A node: its side of the transport, its workers, and an agent that answers with what it was asked.

    Args:
        folder: Folder of the test.
        name: Name of the node.
        credentials: Certificate of the node; None for one of the authority `ca`.
    """

    def __init__(self, folder: Path, name: str, credentials: Credentials | None = None) -> None:
        self.name = name
        self.folder = folder / name
        (self.folder / "workers").mkdir(parents=True)
        self.node = Node(name, "127.0.0.1", free_ports(1)[0])
        self.credentials = credentials or make_credentials(folder, name)
        self.events: Events = []
        self.workers: dict[str, Worker] = {}
        self.side = NodeSide(
            name,
            "127.0.0.1",
            self.node.port,
            self.credentials,
            agent=self.folder / "agent.sock",
            folder=self.folder / "t",
            log=self.folder / "log",
            report=lambda kind, text: self.events.append((kind, text)),
        )
        self._agent: asyncio.Server | None = None

    async def __aenter__(self) -> "Machine":
        self._agent = await asyncio.start_unix_server(self.answer, self.folder / "agent.sock")
        await self.side.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.side.stop()
        for worker in self.workers.values():
            await asyncio.to_thread(worker.__exit__, None, None, None)
        if self._agent is not None:
            self._agent.close()
            await self._agent.wait_closed()

    async def add(self, name: str, handler: Handler = double) -> Worker:
        """Starts a worker that can be called through the node's side."""
        self.workers[name] = Worker(self.folder, name, handler).__enter__()
        await self.side.set_workers({name: worker.path for name, worker in self.workers.items()})
        return self.workers[name]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers a call with what it asked."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        text = f"{self.name} got {head}".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(text), text))
        await writer.drain()
        await close(writer)


class World:
    """The gateway of a test, and its nodes."""

    def __init__(self, folder: Path, machines: Mapping[str, Machine], engine: Engine, credentials: Credentials) -> None:
        self.folder = folder / "g"
        self.machines = machines
        self.engine = engine
        self.events: Events = []
        self.credentials = credentials
        self.side = self.new_side()

    def new_side(self, *, survives: bool = False) -> GatewaySide:
        """Returns another gateway's side in the same folder, as the next controller has it."""
        return GatewaySide(
            self.credentials,
            folder=self.folder / "t",
            log=self.folder / "log",
            report=lambda kind, text: self.events.append((kind, text)),
            survives=survives,
        )

    def controller_dies(self) -> None:
        """Has the gateway's side watch its HAProxy no more, as if the process that started it was killed."""
        watch = self.side._side._keeper._watch
        assert watch is not None
        watch.cancel()

    @property
    def nodes(self) -> list[Node]:
        """All nodes."""
        return [machine.node for machine in self.machines.values()]

    def socket(self, worker: str) -> Path:
        """Returns the socket through which the backend calls a worker."""
        return self.folder / "workers" / f"{worker}.sock"

    def link(self, worker: str, node: str, incarnation: str = "1") -> Link:
        """Returns the link to a worker."""
        return Link(worker, node, incarnation, self.socket(worker))

    def route(self, *workers: str, **more: Any) -> None:
        """Routes the task `t` to workers of other nodes."""
        entries = [specs.entry(worker, remote=True, **more) for worker in workers]
        specs.write_route(self.folder, *entries)

    def front(self) -> Front:
        """Returns a front whose calls are repeated only if they certainly were not executed."""
        return self.engine.front(specs.spec([specs.task(retry=False)]))


@asynccontextmanager
async def world(folder: Path, *machines: Machine, credentials: Credentials | None = None) -> AsyncIterator[World]:
    """Starts the nodes, and a gateway that can call them."""
    async with AsyncExitStack() as stack:
        for machine in machines:
            await stack.enter_async_context(machine)
        (folder / "g" / "workers").mkdir(parents=True)
        with Engine(folder / "g") as engine:
            mine = credentials or make_credentials(folder, CONTROLLER)
            made = World(folder, {machine.name: machine for machine in machines}, engine, mine)
            try:
                await made.side.start(made.nodes)
                yield made
            finally:
                await asyncio.to_thread(engine.close_fronts)
                await made.side.stop()


class Load:
    """Clients that call a front all the time, each with another number, and check the answers."""

    def __init__(self, front: Front, clients: int = 8) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._front = front
        self._clients = clients
        self._ends = threading.Event()
        self._threads: list[threading.Thread] = []

    async def __aenter__(self) -> "Load":
        self._threads = [threading.Thread(target=self._call, args=(n,)) for n in range(self._clients)]
        for thread in self._threads:
            thread.start()
        await self.grows()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._ends.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    async def grows(self, by: int = 50) -> None:
        """Waits until so many more requests have been answered."""
        goal = self.answered + by
        await until(lambda: self.answered >= goal or bool(self.failures))

    def _call(self, client: int) -> None:
        number = client
        while not self._ends.is_set():
            number += self._clients
            outcome = self._front.ask({"X": column(number)})
            if outcome.failure is not None:
                self.failures.append(outcome.message)
            elif outcome["Y"].item() != 2 * number:
                self.failures.append(f"{outcome['Y'].item()} is not twice {number}")
            else:
                self.answered += 1


async def get(
    socket: Path, path: str = "/", headers: Iterable[str] = (), *, method: str = "GET", body: bytes = b""
) -> tuple[int, str]:
    """Sends a request over a new connection. Returns the status and the body of the answer."""
    reader, writer = await asyncio.open_unix_connection(socket)
    head = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", "Connection: close", *headers]
    try:
        async with asyncio.timeout(WAIT_LIMIT_S):
            writer.write("\r\n".join((*head, "", "")).encode() + body)
            answer = await reader.read()
    finally:
        await close(writer)
    first, _, rest = answer.decode().partition("\r\n")
    return int(first.split()[1]), rest.partition("\r\n\r\n")[2]


async def close(writer: asyncio.StreamWriter) -> None:
    """Closes a connection, and waits until that is done."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def eventually_reachable(world: World, *names: str) -> None:
    """Waits until exactly these nodes pass their health checks."""
    async with asyncio.timeout(WAIT_LIMIT_S):
        while True:
            if await world.side.reachable() == set(names):
                return
            await asyncio.sleep(0.02)
