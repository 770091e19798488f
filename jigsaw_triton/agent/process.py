"""The agent's process: it composes the agent, takes the lock of its folder, and runs until it gets a signal."""

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import Collection, Iterable
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
    agent: NodeAgent
    begin_heartbeat(lock)

    def notify(event: NodeEvent) -> None:
        agent.notify(event)

    def report(kind: str, text: str) -> None:
        # The fault that is reported may also keep the event from the controller.
        log.log(logging.ERROR if kind == "error" else logging.INFO, "%s", text)
        notify(Noticed(kind, text))

    def sockets(names: Iterable[str]) -> dict[str, Path]:
        return {name: paths.worker_socket(name) for name in names}

    async def publish(names: Collection[str]) -> None:
        await side.set_workers(sockets(names), fence=agent.commander.fence)

    contents = Contents(paths.contents)
    secret = deployment_secret(paths)
    credentials = credentials_in(settings.certificates)
    node = LocalNode(paths, installation, journal, secret, notify, survives=True, others=SERVERS | {SIDE})
    gateway = GatewayKeeper(settings.name, paths, node, journal, contents, credentials, notify)
    side = NodeSide(
        settings.name,
        settings.address,
        settings.port,
        credentials,
        agent=paths.agent_socket,
        folder=paths.run / "node",
        log=paths.log(SIDE),
        report=report,
        env=marks(paths.state, SIDE),
        survives=True,
    )
    agent = NodeAgent(node, journal, contents, publish, gateway)
    stopping: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    runs = RunRecords(paths.run / FOLDER / WORKERS)
    server = AgentServer(
        paths.agent_socket, settings.name, agent, gateway, contents, runs, end=lambda: _stop(stopping, _COMMANDED)
    )
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, _stop, stopping, number)
    # The proxy of an earlier agent goes on meanwhile, so that the gateway's calls are answered.
    proxy = newest(await asyncio.to_thread(members, paths.state), SIDE)
    found = OsProcess.find(proxy.pid, proxy.started) if proxy is not None else None
    await agent.start()
    await server.start()
    await side.start(sockets(agent.names()), fence=agent.commander.fence, found=found)
    log.info("node %s listens on %s:%s", settings.name, settings.address, settings.port)
    announce(ready)
    upkeep = asyncio.create_task(_upkeep(paths, journal, lock))
    ended_by = await stopping
    upkeep.cancel()
    if ended_by == _COMMANDED or (ended_by == signal.SIGINT and agent.is_idle):
        # Whoever presses Ctrl-C wants the port free. A process manager sends SIGTERM, and may start the next agent at
        # once; until then, the proxy keeps the node from being lost.
        await side.stop()
    if ended_by == _COMMANDED:
        shutil.rmtree(paths.run, ignore_errors=True)
    # No task is cancelled, since that would undo what is under way: the next agent sees to it.
    journal.close()
    logging.shutdown()
    os._exit(0)


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
