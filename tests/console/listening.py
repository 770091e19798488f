"""A controller that listens on its socket, and the command line's own client of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from jigsaw_triton.console.client import ControllerClient
from jigsaw_triton.console.server import StatusServer
from jigsaw_triton.controller.core.generation import ChangeRequest, Generation
from tests.console.conftest import Desk
from tests.controller.worlds import wanted

Read = Callable[[Mapping[str, Any], Generation | None], ChangeRequest]


def always(_request: Mapping[str, Any], _running: Generation | None) -> ChangeRequest:
    return ChangeRequest(wanted())


@asynccontextmanager
async def listening(desk: Desk, read: Read = always) -> AsyncIterator[ControllerClient]:
    server = StatusServer(desk.paths.control_socket, desk.controller, desk.fleet, desk.journal, read)
    await server.start()
    controller = asyncio.create_task(desk.controller.run())
    try:
        yield ControllerClient(desk.paths.control_socket)
    finally:
        desk.controller.down()
        await controller
        await server.stop()


def asked(desk: Desk, ask: Callable[[ControllerClient], Awaitable[None]], read: Read = always) -> None:
    async def run() -> None:
        async with listening(desk, read) as client:
            await ask(client)

    asyncio.run(run())
