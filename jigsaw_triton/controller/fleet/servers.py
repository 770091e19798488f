"""The running servers of a deployment by name: starts, locks and changes of any of them."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from jigsaw_triton.background import end_tasks
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.state import GATEWAY
from jigsaw_triton.controller.fleet.health import Health
from jigsaw_triton.controller.fleet.server import Server
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import ServerError
from jigsaw_triton.servers.client import TritonClient
from jigsaw_triton.servers.command import Command
from jigsaw_triton.servers.os_process import OsProcess
from jigsaw_triton.servers.process import ServerProcess

STARTS_AT_ONCE = 4
"""Number of servers that start concurrently. A start mostly waits for Python interpreters to import modules."""

_REPLACED_S = 120.0
"""Seconds after the first failure of a change of a server within which another process must replace one that dies or
hangs. The backoff of restarts is 30 s at most, and a hang is noticed after as long."""

_REPLACED_POLL_S = 0.05

_STARTUP_S = 120.0


class Servers:
    """Starts servers and keeps them by name.

    Args:
        paths: Paths of the deployment.
        fence: Check before each change of a server; it raises if another controller owns the servers now.
        notify: Callback for events that concern servers.
        survives: True if the servers outlive this process.

    Attributes:
        by_name: Servers, dead or alive, by name. A dead one stays until another replaces it.
        health: Watch of the servers that run.
    """

    def __init__(
        self, paths: Paths, fence: Callable[[], None], notify: Callable[[e.Event], None], *, survives: bool
    ) -> None:
        self.by_name: dict[str, Server] = {}
        self.health = Health(paths, self.by_name, notify)
        self._paths = paths
        self._fence = fence
        self._survives = survives
        self._locks: dict[str, asyncio.Lock] = {}
        self._starting = asyncio.Semaphore(STARTS_AT_ONCE)

    def locked(self, name: str) -> asyncio.Lock:
        """Returns the lock that is held during any change of a server."""
        return self._locks.setdefault(name, asyncio.Lock())

    def registered(self, name: str) -> Server:
        """Returns a server, dead or alive.

        Raises:
            ServerError: The server was retired.
        """
        server = self.by_name.get(name)
        if server is None:
            raise ServerError("the worker no longer exists", where=name)
        return server

    def running(self, name: str) -> Server:
        """Returns a server whose process runs.

        Raises:
            ServerError: The process of the server does not run.
        """
        server = self.by_name.get(name)
        if server is None or server.process.pid is None or server.process.returncode is not None:
            raise ServerError("the server is not running", where=name)
        return server

    async def start(self, name: str, command: Command, repository: Path, uuid: str = "") -> Server:
        """Starts a server without models.

        Args:
            name: Name of the server.
            command: Command line.
            repository: Model repository, created if missing.
            uuid: UUID of the MIG instance; empty for the gateway.
        """
        await asyncio.to_thread(repository.mkdir, parents=True, exist_ok=True)
        process = self._process(name, command)
        async with self._starting:
            self._fence()
            await process.start(timeout_s=_STARTUP_S)
        server = self._register(process, command, repository, uuid)
        self.health.watch(name, server)
        return server

    def adopt(self, name: str, command: Command, repository: Path, uuid: str, process: OsProcess | None) -> None:
        """Registers a server that an earlier controller started. Arguments as for `start`.

        Args:
            name: Name of the server.
            command: Command line.
            repository: Model repository.
            uuid: UUID of the MIG instance; empty for the gateway.
            process: Process of the server; None if it has ended.
        """
        server = self._register(self._process(name, command, process), command, repository, uuid)
        if process is not None:
            server.unseen = True
            self.health.watch(name, server)

    async def end_reconciling(self, name: str) -> None:
        """Cancels the task that checks the models of an adopted server, which may hold the server's lock for long."""
        server = self.by_name.get(name)
        if server is not None:
            await end_tasks(server.reconciling)

    async def change(
        self, name: str, change: Callable[[Server], Awaitable[None]], *, replaced_s: float = _REPLACED_S
    ) -> None:
        """Carries out a change of a server. If the server dies or hangs, the one that replaces it is changed.

        Args:
            name: Name of the server.
            change: Change, which may be repeated.
            replaced_s: Seconds after the first failure within which another process must replace the server.
        """
        give_up_at = math.inf
        while True:
            server = self.by_name.get(name)
            try:
                async with self.locked(name):
                    return await change(self.running(name))
            except ServerError:
                give_up_at = min(give_up_at, time.monotonic() + replaced_s)
                if server is None or server.stuck or await server.client.ready():
                    raise
                if not await self._replaced(name, server, give_up_at):
                    raise

    async def _replaced(self, name: str, server: Server, give_up_at: float) -> bool:
        """Waits until another process runs in place of one. Returns False if none does in time."""
        while self.by_name.get(name) is server:
            if time.monotonic() > give_up_at:
                return False
            await asyncio.sleep(_REPLACED_POLL_S)
        return name in self.by_name

    def _process(self, name: str, command: Command, found: OsProcess | None = None) -> ServerProcess:
        return ServerProcess(name, command, self._paths.log(name), survives=self._survives, found=found)

    def _register(self, process: ServerProcess, command: Command, repository: Path, uuid: str) -> Server:
        name = process.name
        client = TritonClient.of(command)
        server = Server(
            process, client, repository, self._fence, uuid, limited=name == GATEWAY, copies=self._paths.contents
        )
        self.by_name[name] = server
        return server
