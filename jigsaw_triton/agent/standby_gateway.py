"""The servers of a standby gateway: tritonserver, edge, transport, and workers without a GPU beside it."""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from jigsaw_triton import __version__
from jigsaw_triton.compiler.bundle import ModelFolder
from jigsaw_triton.compiler.store import write_model, write_route_file
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.state import GATEWAY
from jigsaw_triton.controller.fleet.commands import Commands
from jigsaw_triton.controller.fleet.drain import drained
from jigsaw_triton.controller.fleet.edge import NAME as EDGE
from jigsaw_triton.controller.fleet.edge import EdgeKeeper
from jigsaw_triton.controller.fleet.gateway import Gateway
from jigsaw_triton.controller.fleet.gateway_content import GatewayContent
from jigsaw_triton.controller.fleet.local_node import LocalNode
from jigsaw_triton.controller.fleet.orphans import end_servers, note_runtime
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.servers.adopted import process_of
from jigsaw_triton.servers.certificates.credentials import Credentials
from jigsaw_triton.servers.command import Command
from jigsaw_triton.servers.image import Image, find_image
from jigsaw_triton.servers.members import leaders, marks, members, newest
from jigsaw_triton.servers.os_process import OsProcess
from jigsaw_triton.servers.transport.config import Link, Node, node_at
from jigsaw_triton.servers.transport.gateway_side import NAME as SIDE
from jigsaw_triton.servers.transport.gateway_side import GatewaySide

SERVERS = frozenset({GATEWAY, EDGE, SIDE})
"""Names of the servers that belong to a standby gateway, beside its workers without a GPU."""

_RELEASE_FACT = "release of the standby gateway"
"""Journal key of the release that started it."""


class StandbyGateway:
    """Reconciles the servers of a standby gateway with a content, whatever of them runs.

    Args:
        name: Name of the node.
        paths: Paths of the node's files.
        node: Workers of this machine, among whose servers the gateway is.
        journal: Journal of the node.
        credentials: Certificate of the node, with which the gateway calls workers of other nodes.
        report: Function that records an event.

    Attributes:
        steps: Workers without a GPU that run, with the names of their models.
    """

    def __init__(
        self,
        name: str,
        paths: Paths,
        node: LocalNode,
        journal: Journal,
        credentials: Credentials,
        report: Callable[[str, str], None],
    ) -> None:
        self._name = name
        self._paths = paths
        self._node = node
        self._journal = journal
        self._credentials = credentials
        self._report = report
        self._edge = EdgeKeeper(paths, report, survives=True)
        self._gateway = Gateway(paths, node.servers, self._edge, self._command)
        self._side: GatewaySide | None = None
        self._image: Image | None = None
        self._behind_edge = False
        self._serves = False
        self._exits: dict[str, list[float]] = {}
        self._started: tuple[GatewayPorts, bool] | None = None
        self._loaded: dict[str, ModelFolder] = {}
        self._written: dict[str, str] = {}
        self._linked: tuple[tuple[Node, ...], tuple[Link, ...], str] | None = None
        self.steps: dict[str, set[str]] = {}

    @property
    def pid(self) -> int | None:
        """Process id of the gateway; None if it does not run."""
        server = self._node.server(GATEWAY)
        return server.process.pid if server is not None and server.process.returncode is None else None

    @property
    def serves(self) -> bool:
        """True if the gateway runs, and has been in sync with a content since its start."""
        return self._serves and self.pid is not None

    def exited(self, name: str) -> None:
        """Notes that the gateway, or a worker beside it, has ended unexpectedly."""
        self.steps.pop(name, None)
        self._exits.setdefault(name, []).append(time.monotonic())

    def incarnation(self, worker: str) -> str:
        """Returns the process of a worker of another node that the gateway calls; empty if it calls none."""
        links = self._linked[1] if self._linked is not None else ()
        return next((link.incarnation for link in links if link.worker == worker), "")

    def _backoff_s(self, name: str) -> float:
        """Returns the delay in seconds of the next restart of a server that has ended."""
        settings, now_s = Settings(), time.monotonic()
        recent = [at_s for at_s in self._exits.get(name, ()) if now_s - at_s < settings.restart_window_s]
        self._exits[name] = recent
        return settings.backoff_s(max(len(recent) - 1, 0))

    async def clear(self, steps: Iterable[str]) -> None:
        """Ends the servers of an earlier agent.

        Args:
            steps: Names of its workers without a GPU, which the node has adopted.
        """
        for name in steps:
            await self._node.retire(name)
        # This runs in a thread, so that other servers of the node can start meanwhile.
        await asyncio.to_thread(end_servers, self._journal, self._paths, SERVERS)

    @property
    def is_current(self) -> bool:
        """True if this release started the gateway of the earlier agent."""
        return self._journal.fact(_RELEASE_FACT) == __version__

    async def adopt(self, content: GatewayContent, ended: frozenset[str]) -> None:
        """Goes on with the servers of an earlier agent, as far as they run. After a failure, it can be tried again.

        Args:
            content: Content that they served last.
            ended: Names of the workers without a GPU that have ended.

        Raises:
            JigsawError: An image, a certificate or HAProxy cannot be used. The servers go on.
        """
        await self._prepare(content)
        running = await asyncio.to_thread(members, self._paths.state)
        edge, side = newest(running, EDGE), newest(running, SIDE)
        await self._edge.adopt(OsProcess.find(edge.pid, edge.started) if edge is not None else None)
        await self._link(content, OsProcess.find(side.pid, side.started) if side is not None else None)
        command = self._command(content.ports)
        process = await process_of(command, leaders(running).get(GATEWAY))
        self._node.servers.adopt(GATEWAY, command, self._paths.gateway_repository, "", process)
        self._started = (content.ports, self._behind_edge)
        self.steps = {w.name: {m.name for m in w.models} for w in content.steps if w.name not in ended}

    async def apply(self, content: GatewayContent) -> bool:
        """Reconciles the gateway with its content.

        Workers can be called before routes name them, and routes exist before fronts use them.

        Returns:
            False if something that is no longer needed is still in use.
        """
        await self._prepare(content)
        await self._link(content)
        await self._step(content)
        await self._route(content)
        await self._run(content)
        await self._load((*content.models, *content.fronts))
        self._edge.admit()
        self._serves = True
        return await self._tidy(content)

    async def _prepare(self, content: GatewayContent) -> None:
        if content.image is not None and self._image is None:
            self._image = await asyncio.to_thread(find_image, content.image)
            note_runtime(self._journal, self._image.runtime, self._paths.run)
        self._behind_edge = content.edge is not None
        await self._edge.configure(content.edge, content.ports)
        self._node.servers.health.gateway_memory_mib = content.memory_mib

    async def _link(self, content: GatewayContent, found: OsProcess | None = None) -> None:
        """Offers the workers of other nodes. Those of this one have their own sockets."""
        nodes = tuple(node_at(name, address) for name, address in content.nodes.items() if name != self._name)
        links = tuple(
            Link(worker.name, worker.node, worker.incarnation, self._paths.worker_socket(worker.name))
            for worker in content.workers
            if worker.node != self._name and worker.node in content.nodes
        )
        if self._linked == (nodes, links, content.epoch):
            return
        if self._side is None:
            side = GatewaySide(
                self._credentials,
                folder=self._paths.run / "nodes",
                log=self._paths.log(SIDE),
                report=self._report,
                env=marks(self._paths.state, SIDE),
                survives=True,
                epoch=content.epoch,
            )
            await side.start(nodes, links, found=found)
            self._side = side
        else:
            # Changes that are made together take one reload of HAProxy.
            await asyncio.gather(
                self._side.set_nodes(nodes), self._side.set_epoch(content.epoch), self._side.set_links(links)
            )
        self._linked = (nodes, links, content.epoch)

    async def _step(self, content: GatewayContent) -> None:
        """Starts the workers without a GPU, and loads what they lack."""
        for worker in content.steps:
            loaded = self.steps.get(worker.name)
            if loaded is None:
                if self._node.server(worker.name) is not None:
                    await self._node.restart(worker, self._backoff_s(worker.name))
                else:
                    await self._node.bring_up(worker)
                self.steps[worker.name] = {model.name for model in worker.models}
            elif missing := [model for model in worker.models if model.name not in loaded]:
                await self._node.load(worker.name, missing)
                loaded |= {model.name for model in missing}

    async def _route(self, content: GatewayContent) -> None:
        for name, text in reversed(list(content.routes.items())):
            if self._written.get(name) != text:
                await asyncio.to_thread(write_route_file, self._paths.run, name, text.encode())
                self._written[name] = text

    async def _run(self, content: GatewayContent) -> None:
        """Starts the gateway, or another one if it has died or listens elsewhere."""
        wanted = (content.ports, self._behind_edge)
        if self.pid is not None:
            if self._started == wanted:
                return
            await self._gateway.stop()
        self._serves = False
        self._loaded.clear()
        self._journal.keep_fact(_RELEASE_FACT, __version__)
        if self._node.server(GATEWAY) is None:
            await self._gateway.start(content.ports)
            self._started = wanted
            return
        self._started = wanted
        folders = (*content.models, *content.fronts)
        await self._gateway.restart(content.ports, folders, self._backoff_s(GATEWAY))
        self._loaded = {folder.name: folder for folder in folders}
        self._report("restart", f"the standby gateway on node {self._name} serves again")

    async def _load(self, folders: Iterable[ModelFolder]) -> None:
        """Loads what the gateway lacks. A front that serves is replaced without a lost request."""
        servers = self._node.servers
        for folder in folders:
            if self._loaded.get(folder.name) == folder:
                continue
            async with servers.locked(GATEWAY):
                server = servers.running(GATEWAY)
                await asyncio.to_thread(write_model, folder, server.repository)
                await server.load(folder.name)
                await server.verify([folder.name])
            self._loaded[folder.name] = folder

    async def _tidy(self, content: GatewayContent) -> bool:
        """Removes what is no longer needed. Returns False if some of it is still in use."""
        wanted = {*content.graphs, *(folder.name for folder in (*content.models, *content.fronts))}
        states = await self._node.servers.running(GATEWAY).client.index()
        # Models that were loaded later may call the earlier ones.
        known = {name: number for number, name in enumerate(self._loaded)}
        gone = [name for name, state in states.items() if state != "UNAVAILABLE" and name not in wanted]
        if gone:
            await self._gateway.unload(sorted(gone, key=lambda name: known.get(name, -1), reverse=True))
        self._loaded = {name: folder for name, folder in self._loaded.items() if name not in gone}
        for worker in content.steps:
            models = {model.name for model in worker.models}
            if extra := self.steps[worker.name] - models:
                await self._node.unload(worker.name, extra)
                self.steps[worker.name] = models
        for name in self.steps.keys() - {worker.name for worker in content.steps}:
            await self._node.retire(name)
            del self.steps[name]
        return await self._end_routes(content.routes)

    async def _end_routes(self, wanted: Iterable[str]) -> bool:
        ended = True
        for path in (self._paths.run / "routes").glob("*.json"):
            if path.stem not in wanted:
                held = self._paths.task(path.stem)
                if held.exists() and not await drained(held, 0.0):
                    ended = False
                    continue
                self._written.pop(path.stem, None)
                path.unlink(missing_ok=True)
                held.unlink(missing_ok=True)
        return ended

    async def end(self) -> None:
        """Ends all servers, and removes what the gateway had in the run directory."""
        await self._gateway.stop()
        if self._side is not None:
            await self._side.stop()
        for name in list(self.steps):
            await self._node.retire(name)
        self._side = self._linked = self._started = self._image = None
        self.steps, self._loaded, self._written, self._exits, self._serves = {}, {}, {}, {}, False
        run = self._paths.run
        for folder in (run / "routes", run / "tasks", run / "slots", self._paths.generations):
            await asyncio.to_thread(shutil.rmtree, folder, True)
        # The next deployment begins with its own epochs.
        self._paths.epoch.unlink(missing_ok=True)

    def _command(self, ports: GatewayPorts) -> Command:
        commands: Commands = replace(self._node.commands, edge=self._behind_edge, gateway_image=self._image)
        return commands.gateway(ports)
