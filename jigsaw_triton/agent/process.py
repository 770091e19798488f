"""The agent's process: it composes the agent, takes the lock of its folder, and runs until it gets a signal."""

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import Callable, Collection, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.agent.background import READY_VARIABLE, announce
from jigsaw_triton.agent.gateway_keeper import GatewayKeeper
from jigsaw_triton.agent.node_agent import NodeAgent
from jigsaw_triton.agent.run_records import RunRecords
from jigsaw_triton.agent.server import AgentServer
from jigsaw_triton.agent.standby_gateway import SERVERS
from jigsaw_triton.controller.core.events import Noticed
from jigsaw_triton.controller.fleet.local_node import LocalNode
from jigsaw_triton.controller.fleet.wire import NodeEvent
from jigsaw_triton.controller.persistence.contents import Contents
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.lock import (
    AlreadyRunsError,
    beat,
    begin_heartbeat,
    take_lock,
)
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.controller.persistence.secret import deployment_secret
from jigsaw_triton.errors import StateError
from jigsaw_triton.runtime.trace import FOLDER, WORKERS
from jigsaw_triton.servers.certificates.credentials import credentials_in
from jigsaw_triton.servers.installation import Installation
from jigsaw_triton.servers.logfile import rotate
from jigsaw_triton.servers.members import marks, members, newest
from jigsaw_triton.servers.os_process import OsProcess
from jigsaw_triton.servers.transport.node_side import NAME as SIDE
from jigsaw_triton.servers.transport.node_side import NodeSide

log = logging.getLogger(__name__)

_UPKEEP_S = 1.0

_COMMANDED = 0
"""Stands for the command of the controller, in place of the number of a signal, where an agent says why it ends."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Settings of an agent.

    Attributes:
        name: Name of the node, as cluster.yaml has it.
        address: Address to listen on.
        port: TCP port to listen on.
        certificates: Folder with the node's certificates.
    """

    name: str
    address: str
    port: int
    certificates: Path


def run_agent(paths: Paths, installation: Installation, settings: AgentSettings) -> None:
    """Runs an agent in this process until it gets SIGTERM or SIGINT. The workers go on, and the next agent adopts them.

    The proxy goes on, too, except after SIGINT without workers.

    Args:
        paths: Paths of the node's files, created if missing.
        installation: Tritonserver to run.
        settings: Settings of the agent.

    Raises:
        StateError: Another agent, or a controller, runs with this folder.
        InputError: The port is in use, or a certificate is invalid.
    """
    # The servers that the agent starts must not inherit the variable.
    ready = os.environ.pop(READY_VARIABLE, "")
    paths.create()
    try:
        lock = take_lock(paths.lock)
    except AlreadyRunsError as error:
        hint = "give each agent its own folder with --state"
        raise StateError("an agent or a controller is already running here", where=error.where, hint=hint) from error
    try:
        with closing(Journal(paths.journal, _end_superseded)) as journal:
            asyncio.run(_serve(paths, lock, installation, journal, settings, ready))
    finally:
        os.close(lock)


async def _serve(
    paths: Paths, lock: int, installation: Installation, journal: Journal, settings: AgentSettings, ready: str
) -> None:
    begin_heartbeat(lock)
    stopping: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    parts = _Parts(paths, installation, journal, settings, end=lambda: _stop(stopping, _COMMANDED))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, _stop, stopping, number)
    await parts.start()
    log.info("node %s listens on %s:%s", settings.name, settings.address, settings.port)
    announce(ready)
    upkeep = asyncio.create_task(_upkeep(paths, journal, lock))
    ended_by = await stopping
    upkeep.cancel()
    await parts.end(ended_by)
    # No task is cancelled: that would undo actions in progress, which the next agent completes.
    journal.close()
    logging.shutdown()
    os._exit(0)


class _Parts:
    """The parts of an agent, connected with each other.

    Args:
        paths: Paths of the node's files.
        installation: Tritonserver to run.
        journal: Journal of the node.
        settings: Settings of the agent.
        end: Callback for the command of the controller to end the agent.
    """

    def __init__(
        self,
        paths: Paths,
        installation: Installation,
        journal: Journal,
        settings: AgentSettings,
        end: Callable[[], None],
    ) -> None:
        self._paths = paths
        contents = Contents(paths.contents)
        credentials = credentials_in(settings.certificates)
        node = LocalNode(
            paths,
            installation,
            journal,
            deployment_secret(paths),
            self._notify,
            survives=True,
            others=SERVERS | {SIDE},
        )
        gateway = GatewayKeeper(settings.name, paths, node, journal, contents, credentials, self._notify)
        self._side = NodeSide(
            settings.name,
            settings.address,
            settings.port,
            credentials,
            agent=paths.agent_socket,
            folder=paths.run / "node",
            log=paths.log(SIDE),
            report=self._report,
            env=marks(paths.state, SIDE),
            survives=True,
        )
        self._agent = NodeAgent(node, journal, contents, self._publish, gateway)
        runs = RunRecords(paths.run / FOLDER / WORKERS)
        self._server = AgentServer(paths.agent_socket, settings.name, self._agent, gateway, contents, runs, end=end)

    async def start(self) -> None:
        """Starts the agent. The proxy of an earlier one goes on meanwhile, so that the gateway's calls are answered."""
        proxy = newest(await asyncio.to_thread(members, self._paths.state), SIDE)
        found = OsProcess.find(proxy.pid, proxy.started) if proxy is not None else None
        await self._agent.start()
        await self._server.start()
        await self._side.start(self._sockets(self._agent.names()), fence=self._agent.commander.fence, found=found)

    async def end(self, ended_by: int) -> None:
        """Ends what must not outlive the agent.

        Args:
            ended_by: Number of the signal that ends the agent, or `_COMMANDED`.
        """
        if ended_by == _COMMANDED or (ended_by == signal.SIGINT and self._agent.is_idle):
            # A user who presses Ctrl-C wants the port free. A process manager sends SIGTERM and may start the next
            # agent at once; until that agent answers, the proxy keeps the controller from taking the node for lost.
            await self._side.stop()
        if ended_by == _COMMANDED:
            shutil.rmtree(self._paths.run, ignore_errors=True)

    def _notify(self, event: NodeEvent) -> None:
        self._agent.notify(event)

    def _report(self, kind: str, text: str) -> None:
        # The same fault may keep the event from reaching the controller, so the log has it too.
        log.log(logging.ERROR if kind == "error" else logging.INFO, "%s", text)
        self._notify(Noticed(kind, text))

    async def _publish(self, names: Collection[str]) -> None:
        await self._side.set_workers(self._sockets(names), fence=self._agent.commander.fence)

    def _sockets(self, names: Iterable[str]) -> dict[str, Path]:
        return {name: self._paths.worker_socket(name) for name in names}


def _stop(stopping: "asyncio.Future[int]", number: int) -> None:
    if not stopping.done():
        stopping.set_result(number)


async def _upkeep(paths: Paths, journal: Journal, lock: int) -> None:
    """Shows that the agent runs, keeps its log short, and writes the journal again if its file was full or lost."""
    while True:
        await asyncio.sleep(_UPKEEP_S)
        beat(lock)
        journal.sync()
        await asyncio.to_thread(journal.flush)
        with suppress(OSError):
            await asyncio.to_thread(rotate, paths.log("agent"))


def _end_superseded(error: StateError) -> None:
    """Ends this process at once, in whichever thread: another agent has taken over the folder."""
    log.critical("%s; it ends and leaves the workers alone", error)
    logging.shutdown()
    os._exit(error.exit_code)
