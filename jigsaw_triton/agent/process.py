"""The agent's process: it composes the agent, takes the lock of its folder, and runs until it gets a signal."""

import asyncio
import logging
import os
import signal
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.agent.contents import Contents
from jigsaw_triton.agent.node_agent import NodeAgent
from jigsaw_triton.agent.server import AgentServer
from jigsaw_triton.controller.core.events import Event, Noticed
from jigsaw_triton.controller.fleet.local_node import LocalNode
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.lock import AlreadyRunsError, take_lock
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.controller.persistence.secret import deployment_secret
from jigsaw_triton.errors import StateError
from jigsaw_triton.servers.certificates.credentials import credentials_in
from jigsaw_triton.servers.installation import Installation
from jigsaw_triton.servers.members import marks, members, newest
from jigsaw_triton.servers.os_process import OsProcess
from jigsaw_triton.servers.transport.node_side import NAME as SIDE
from jigsaw_triton.servers.transport.node_side import NodeSide

log = logging.getLogger(__name__)

_UPKEEP_S = 1.0


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
    paths.create()
    try:
        lock = take_lock(paths.lock)
    except AlreadyRunsError as error:
        hint = "give each agent its own folder with --state"
        raise StateError("an agent or a controller is already running here", where=error.where, hint=hint) from error
    try:
        with closing(Journal(paths.journal, _end_superseded)) as journal:
            asyncio.run(_serve(paths, installation, journal, settings))
    finally:
        os.close(lock)


async def _serve(paths: Paths, installation: Installation, journal: Journal, settings: AgentSettings) -> None:
    agent: NodeAgent

    def notify(event: Event) -> None:
        agent.notify(event)

    def report(kind: str, text: str) -> None:
        # The controller may be unable to hear it, because of what is reported.
        log.log(logging.ERROR if kind == "error" else logging.INFO, "%s", text)
        notify(Noticed(kind, text))

    def sockets(names: Iterable[str]) -> dict[str, Path]:
        return {name: paths.worker_socket(name) for name in names}

    contents = Contents(paths.state / "contents")
    secret = deployment_secret(paths)
    node = LocalNode(paths, installation, journal, secret, notify, survives=True, others=frozenset({SIDE}))
    side = NodeSide(
        settings.name,
        settings.address,
        settings.port,
        credentials_in(settings.certificates),
        agent=paths.agent_socket,
        folder=paths.run / "node",
        log=paths.log(SIDE),
        report=report,
        env=marks(paths.state, SIDE),
        survives=True,
    )
    agent = NodeAgent(node, journal, contents, lambda names: side.set_workers(sockets(names)))
    server = AgentServer(paths.agent_socket, settings.name, agent, contents)
    stopping: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, _stop, stopping, number)
    # The proxy of an earlier agent goes on meanwhile, so that the gateway's calls are answered.
    proxy = newest(await asyncio.to_thread(members, paths.state), SIDE)
    found = OsProcess.find(proxy.pid, proxy.started) if proxy is not None else None
    await agent.start()
    await server.start()
    await side.start(sockets(agent.names()), found=found)
    log.info("node %s listens on %s:%s", settings.name, settings.address, settings.port)
    upkeep = asyncio.create_task(_upkeep(journal))
    ended_by = await stopping
    upkeep.cancel()
    if ended_by == signal.SIGINT and agent.is_idle:
        # Whoever presses Ctrl-C wants the port free. A process manager sends SIGTERM, and may start the next agent at
        # once; until then, the proxy keeps the node from being lost.
        await side.stop()
    # No task is cancelled, since that would undo what is under way: the next agent sees to it.
    journal.close()
    logging.shutdown()
    os._exit(0)


def _stop(stopping: "asyncio.Future[int]", number: int) -> None:
    if not stopping.done():
        stopping.set_result(number)


async def _upkeep(journal: Journal) -> None:
    """Writes the journal again if its file was full, damaged or lost."""
    while True:
        await asyncio.sleep(_UPKEEP_S)
        journal.sync()
        await asyncio.to_thread(journal.flush)


def _end_superseded(error: StateError) -> None:
    """Ends this process at once, in whichever thread: another agent has taken over the folder."""
    log.critical("%s; it ends and leaves the workers alone", error)
    logging.shutdown()
    os._exit(error.exit_code)
