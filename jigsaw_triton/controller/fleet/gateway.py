"""The gateway: its start, its models and fronts, its edge, and its end."""

import asyncio
import shutil
from collections.abc import Callable, Iterable, Sequence

from jigsaw_triton.compiler.bundle import ModelFolder
from jigsaw_triton.compiler.store import write_model
from jigsaw_triton.controller.core.state import GATEWAY
from jigsaw_triton.controller.fleet.edge import EdgeKeeper
from jigsaw_triton.controller.fleet.server import Server
from jigsaw_triton.controller.fleet.servers import Servers
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.runtime.dtypes import Arrays
from jigsaw_triton.servers.command import Command

_GRACE_S = 3.0
"""Seconds to wait for the gateway to stop. Triton uses all of it if clients are still connected, even if idle."""


class Gateway:
    """Starts, changes and stops the gateway. A method that fails leaves nothing behind.

    Args:
        paths: Paths of the deployment.
        servers: Servers of the deployment.
        edge: Edge in front of the gateway.
        command: Function that returns the command line of the gateway.
    """

    def __init__(
        self, paths: Paths, servers: Servers, edge: EdgeKeeper, command: Callable[[GatewayPorts], Command]
    ) -> None:
        self._paths = paths
        self._servers = servers
        self._command = command
        self._edge = edge

    async def start(self, ports: GatewayPorts) -> None:
        """Starts the gateway without models."""
        async with self._servers.locked(GATEWAY):
            await self._start(ports)
            try:
                await self._edge.start()
            except BaseException:
                server = self._servers.by_name.pop(GATEWAY)
                await asyncio.shield(server.stop())
                raise

    async def restart(self, ports: GatewayPorts, models: Sequence[ModelFolder], delay_s: float) -> None:
        """Restarts a dead gateway with the same models."""
        async with self._servers.locked(GATEWAY):
            dead = self._servers.by_name.get(GATEWAY)
            if dead is not None:
                await dead.stop()
            await asyncio.sleep(delay_s)
            await self._start(ports)
            await self._servers.running(GATEWAY).load_all(models)
            self._edge.admit()

    async def stop(self) -> None:
        """Stops the gateway, after a few seconds for requests in progress."""
        await self._servers.end_reconciling(GATEWAY)
        async with self._servers.locked(GATEWAY):
            await asyncio.shield(self._edge.stop())
            server = self._servers.by_name.pop(GATEWAY, None)
            if server is not None:
                await asyncio.shield(server.stop(grace_s=_GRACE_S))
            await asyncio.to_thread(shutil.rmtree, self._paths.gateway_repository, True)

    async def load(self, models: Sequence[ModelFolder]) -> None:
        """Loads models at the gateway."""
        await self._servers.change(GATEWAY, lambda server: server.load_all(models))

    async def flip(self, front: ModelFolder, rehearsal: ModelFolder, inputs: Arrays | None) -> None:
        """Replaces the front that serves, after a copy of the new one has answered a probe under another name.

        Args:
            front: Front to serve.
            rehearsal: Copy of the front under a name that no client uses.
            inputs: Real request with its batch dimension; None for zeros.
        """

        async def change(server: Server) -> None:
            await self._rehearsed(server, rehearsal, inputs)
            await asyncio.to_thread(write_model, front, server.repository)
            await server.load(front.name)
            await server.verify([front.name])
            self._edge.admit()

        await self._servers.change(GATEWAY, change)

    async def compare(self, front: ModelFolder, rehearsal: ModelFolder, inputs: Arrays | None) -> tuple[Arrays, Arrays]:
        """Returns the answers to one request: of the front that serves, and of a copy of the next one.

        Args:
            front: Front to serve next.
            rehearsal: Copy of the front under a name that no client uses.
            inputs: Real request with its batch dimension; None for zeros.
        """
        async with self._servers.locked(GATEWAY):
            server = self._servers.running(GATEWAY)
            new = await self._rehearsed(server, rehearsal, inputs)
            return await server.probe(front.name, inputs), new

    async def _rehearsed(self, server: Server, rehearsal: ModelFolder, inputs: Arrays | None) -> Arrays:
        """Returns the answer of a front that is loaded for one request."""
        await server.load_all([rehearsal])
        try:
            return await server.probe(rehearsal.name, inputs)
        finally:
            await asyncio.shield(server.unload_all([rehearsal.name]))

    async def unload(self, models: Iterable[str]) -> None:
        """Unloads models at the gateway, and waits until their last requests have been answered."""
        names = tuple(models)
        await self._servers.change(GATEWAY, lambda server: server.unload_all(names))

    async def _start(self, ports: GatewayPorts) -> None:
        await self._servers.start(GATEWAY, self._command(ports), self._paths.gateway_repository)
