"""The standby gateway of a node: a gateway that serves what the controller's gateway serves, on a machine of its own.

The controller says what it is to serve, as a value (`controller.fleet.gateway_content`). One task brings the gateway in
line with the last value, whatever runs: a gateway of an earlier agent, one that has died, or none.
"""

import asyncio
import contextlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from jigsaw_triton import __version__
from jigsaw_triton.agent.contents import Contents
from jigsaw_triton.compiler.bundle import ModelFolder, Worker
from jigsaw_triton.compiler.store import write_model, write_route_file
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.state import GATEWAY
from jigsaw_triton.controller.fleet.commands import Commands
from jigsaw_triton.controller.fleet.drain import drained
from jigsaw_triton.controller.fleet.edge import NAME as EDGE
from jigsaw_triton.controller.fleet.edge import EdgeKeeper
from jigsaw_triton.controller.fleet.gateway import Gateway
from jigsaw_triton.controller.fleet.gateway_content import GatewayContent, content_digests, opened_content
from jigsaw_triton.controller.fleet.local_node import LocalNode, process_of
from jigsaw_triton.controller.fleet.orphans import note_runtime
from jigsaw_triton.controller.fleet.wire import Condemned, Json, NodeEvent
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import JigsawError
from jigsaw_triton.gpus.model import GatewayPorts
from jigsaw_triton.servers.certificates.credentials import Credentials
from jigsaw_triton.servers.command import Command
from jigsaw_triton.servers.image import Image, find_image
from jigsaw_triton.servers.members import end_members, leaders, marks, members, newest
from jigsaw_triton.servers.os_process import OsProcess
from jigsaw_triton.servers.transport.config import Link, Node, node_at
from jigsaw_triton.servers.transport.gateway_side import NAME as SIDE
from jigsaw_triton.servers.transport.gateway_side import GatewaySide

log = logging.getLogger(__name__)

SERVERS = frozenset({GATEWAY, EDGE, SIDE})
"""Names of the servers that belong to a standby gateway, beside its workers without a GPU."""

_CONTENT_FACT, _RELEASE_FACT = "standby gateway", "release of the standby gateway"
"""Journal keys of what it is to serve, as it travelled, and of the release that started it."""

_TIDY_S = 1.0
"""Seconds after which routes that were still in use are looked at again."""

_END_S = 30.0
"""Seconds to wait until it has ended."""


class GatewayKeeper:
    """Keeps a standby gateway in line with what the controller wants.

    Args:
        name: Name of the node.
        paths: Paths of the node's files.
        node: Workers of this machine, among whose servers the gateway is.
        journal: Journal of the node.
        contents: Files of models.
        credentials: Certificate of the node, with which the gateway calls workers of other nodes.
        notify: Callback for events that the controller has to know.
    """

    def __init__(
        self,
        name: str,
        paths: Paths,
        node: LocalNode,
        journal: Journal,
        contents: Contents,
        credentials: Credentials,
        notify: Callable[[NodeEvent], None],
    ) -> None:
        self._name = name
        self._paths = paths
        self._node = node
        self._journal = journal
        self._contents = contents
        self._credentials = credentials
        self._notify = notify
        self._edge = EdgeKeeper(paths, self._report, survives=True)
        self._gateway = Gateway(paths, node.servers, self._edge, self._command)
        self._side: GatewaySide | None = None
        self._image: Image | None = None
        self._behind_edge = False
        self._wanted: Json | None = None
        self._order = ("", 0)
        self._applied = ("", 0)
        self._in_line = True
        self._serves = False
        self._failure = ""
        self._exits: list[float] = []
        self._started: tuple[GatewayPorts, bool] | None = None
        self._loaded: dict[str, ModelFolder] = {}
        self._stepped: dict[str, set[str]] = {}
        self._written: dict[str, str] = {}
        self._linked: tuple[tuple[Node, ...], tuple[Link, ...], str] | None = None
        self._wake = asyncio.Event()
        self._progress = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        node.servers.health.elsewhere = self._condemn

    # --- what is wanted --------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """True if there is a standby gateway, or one is to be."""
        return self._wanted is not None

    def digests(self) -> set[str]:
        """Returns the digests of the files that it needs."""
        return set(content_digests(self._wanted)) if self._wanted is not None else set()

    def want(self, epoch: str, number: int, content: Json | None) -> None:
        """Sets what to serve from now on; None for nothing. An order that comes late is ignored.

        Args:
            epoch: Epoch of the controller.
            number: Number of the order, which grows.
            content: The content, whose files have arrived.
        """
        if epoch == self._order[0] and number <= self._order[1]:
            return
        self._order = (epoch, number)
        self._want(content)

    async def end(self) -> None:
        """Ends the standby gateway, and waits until it has ended."""
        if self._wanted is None and self._in_line:
            return
        self._want(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S), self._progress:
                await self._progress.wait_for(lambda: self._in_line)

    def _want(self, content: Json | None) -> None:
        self._wanted, self._in_line = content, False
        self._journal.keep_fact(_CONTENT_FACT, json.dumps(content) if content is not None else "")
        self._wake.set()

    async def status(self, after: tuple[str, int] = ("", 0), wait_s: float = 0.0) -> Json:
        """Returns the state of the gateway.

        Args:
            after: Epoch and number of an order to wait for.
            wait_s: Seconds to wait until that order has been carried out.
        """
        if wait_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s), self._progress:
                    await self._progress.wait_for(lambda: self._applied == after)
        server = self._node.server(GATEWAY)
        return {
            "order": list(self._order),
            "applied": list(self._applied),
            "state": self._state(),
            "pid": server.process.pid if server is not None and self._runs() else None,
            "failure": self._failure,
        }

    def _state(self) -> str:
        if self._wanted is None:
            return "absent"
        return "ready" if self._runs() and self._serves else "starting"

    def _runs(self) -> bool:
        server = self._node.server(GATEWAY)
        return server is not None and server.process.pid is not None and server.process.returncode is None

    async def unused(
        self, models: Iterable[tuple[str, str]], generations: Iterable[tuple[str, int]], wait_s: float
    ) -> bool:
        """Waits until the gateway uses none of these models and generations. Returns False if it still does.

        Args:
            models: (worker, model) pairs.
            generations: (graph, generation) pairs.
            wait_s: Seconds to wait.
        """
        files = [
            *(self._paths.slots(worker, model) for worker, model in models),
            *(self._paths.generation(graph, number) for graph, number in generations),
        ]
        # Without a file, the gateway has never used it.
        return all(await asyncio.gather(*(drained(path, wait_s) for path in files if path.exists())))

    # --- events ----------------------------------------------------------------------------------------------------

    def takes(self, event: NodeEvent) -> bool:
        """Handles an event of one of its servers. Returns False if the event concerns another one."""
        match event:
            case e.GatewayExited(status):
                self._exits.append(time.monotonic())
                self._report("error", f"the standby gateway on node {self._name} ended: {status}; starting it again")
            case e.WorkerExited(worker, status) if self._is_own(worker):
                self._stepped.pop(worker, None)
                self._report("error", f"{worker} beside the standby gateway ended: {status}; starting it again")
            case e.Stalled(server, seconds) if self._is_own(server):
                text = f"{server} on node {self._name}, of the standby gateway, has not answered for {seconds:g} s"
                self._report("error", text)
                return True
            case e.Answered(server) if self._is_own(server):
                return True
            case _:
                return False
        self._in_line = False
        self._wake.set()
        return True

    def _is_own(self, server: str) -> bool:
        wanted = {step["name"] for step in self._wanted["steps"]} if self._wanted is not None else set()
        return server == GATEWAY or server in wanted or server in self._stepped

    def _report(self, kind: str, text: str) -> None:
        self._notify(e.Noticed(kind, text))

    async def _condemn(self, worker: str, cause: str) -> None:
        self._notify(Condemned(worker, cause))

    # --- bringing it in line ---------------------------------------------------------------------------------------

    def steps(self) -> dict[str, Worker]:
        """Returns the workers without a GPU that an earlier agent kept beside its gateway, by name."""
        known = self._journal.fact(_CONTENT_FACT)
        if not known:
            return {}
        return {worker.name: worker for worker in opened_content(json.loads(known), self._contents.path).steps}

    async def start(self, ended: Iterable[str] = ()) -> None:
        """Goes on with the gateway of an earlier agent, or ends it if there is to be none.

        Args:
            ended: Names of the workers of `steps` that have ended.
        """
        known = self._journal.fact(_CONTENT_FACT)
        self._wanted = json.loads(known) if known else None
        if self._wanted is not None and self._journal.fact(_RELEASE_FACT) == __version__:
            await self._adopt(opened_content(self._wanted, self._contents.path), frozenset(ended))
        else:
            others = {member.server for member in await asyncio.to_thread(members, self._paths.state)} - SERVERS
            await asyncio.to_thread(end_members, self._paths.state, others)
        self._in_line = self._wanted is None
        self._task = asyncio.create_task(self._keep(), name="keep the standby gateway")

    async def _adopt(self, content: GatewayContent, ended: frozenset[str]) -> None:
        running = await asyncio.to_thread(members, self._paths.state)
        try:
            await self._prepare(content)
            command = self._command(content.ports)
            process = await process_of(command, leaders(running).get(GATEWAY))
            self._node.servers.adopt(GATEWAY, command, self._paths.gateway_repository, "", process)
            edge, side = newest(running, EDGE), newest(running, SIDE)
            await self._edge.adopt(OsProcess.find(edge.pid, edge.started) if edge is not None else None)
            await self._link(content, OsProcess.find(side.pid, side.started) if side is not None else None)
            self._started = (content.ports, self._behind_edge)
        except JigsawError as error:
            # Another one takes its place.
            self._report("error", f"the standby gateway on node {self._name} cannot be adopted: {error}")
        self._stepped = {w.name: {m.name for m in w.models} for w in content.steps if w.name not in ended}

    async def _keep(self) -> None:
        """Brings the gateway in line whenever something else is wanted, or something has ended."""
        failures = 0
        while True:
            self._wake.clear()
            order, wanted = self._order, self._wanted
            wait_s: float | None = None
            try:
                if wanted is None:
                    await self._end()
                elif not await self._apply(opened_content(wanted, self._contents.path)):
                    wait_s = _TIDY_S
                failures, self._failure = 0, ""
                self._applied, self._in_line = order, not self._wake.is_set()
                await self._tell()
            except Exception as error:
                # Whatever it is, the next content or the next try may do better.
                text = str(error) if isinstance(error, JigsawError) else f"{type(error).__name__}: {error}"
                log.warning("the standby gateway is not in line", exc_info=error)
                if text != self._failure:
                    self._failure = text
                    self._report("error", f"the standby gateway on node {self._name} is not in line: {text}")
                failures += 1
                wait_s = max(Settings().backoff_s(failures), _TIDY_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_s)

    async def _tell(self) -> None:
        async with self._progress:
            self._progress.notify_all()

    async def _apply(self, content: GatewayContent) -> bool:
        """Brings the gateway in line with its content.

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
            # They are one reload.
            await asyncio.gather(
                self._side.set_nodes(nodes), self._side.set_epoch(content.epoch), self._side.set_links(links)
            )
        self._linked = (nodes, links, content.epoch)

    async def _step(self, content: GatewayContent) -> None:
        """Starts the workers without a GPU, and loads what they lack."""
        for worker in content.steps:
            loaded = self._stepped.get(worker.name)
            if loaded is None:
                if self._node.server(worker.name) is not None:
                    await self._node.restart(worker, 0.0)
                else:
                    await self._node.bring_up(worker)
                self._stepped[worker.name] = {model.name for model in worker.models}
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
        if self._runs():
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
        now_s = time.monotonic()
        self._exits = [at_s for at_s in self._exits if now_s - at_s < Settings().restart_window_s]
        folders = (*content.models, *content.fronts)
        await self._gateway.restart(content.ports, folders, Settings().backoff_s(len(self._exits) - 1))
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
        # Those that were loaded last may call the others.
        known = {name: number for number, name in enumerate(self._loaded)}
        gone = [name for name, state in states.items() if state != "UNAVAILABLE" and name not in wanted]
        if gone:
            await self._gateway.unload(sorted(gone, key=lambda name: known.get(name, -1), reverse=True))
        self._loaded = {name: folder for name, folder in self._loaded.items() if name not in gone}
        for worker in content.steps:
            models = {model.name for model in worker.models}
            if extra := self._stepped[worker.name] - models:
                await self._node.unload(worker.name, extra)
                self._stepped[worker.name] = models
        for name in self._stepped.keys() - {worker.name for worker in content.steps}:
            await self._node.retire(name)
            del self._stepped[name]
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

    async def _end(self) -> None:
        await self._gateway.stop()
        if self._side is not None:
            await self._side.stop()
        for name in list(self._stepped):
            await self._node.retire(name)
        self._side = self._linked = self._started = self._image = None
        self._stepped, self._loaded, self._written, self._exits, self._serves = {}, {}, {}, [], False
        run = self._paths.run
        for folder in (run / "routes", run / "tasks", run / "slots", self._paths.generations):
            await asyncio.to_thread(shutil.rmtree, folder, True)
        # The next deployment begins with its own epochs.
        self._paths.epoch.unlink(missing_ok=True)

    def _command(self, ports: GatewayPorts) -> Command:
        commands: Commands = replace(self._node.commands, edge=self._behind_edge, gateway_image=self._image)
        return commands.gateway(ports)
