"""The socket at which a running console answers the command line: it gives out URLs, and says how it was started.

Only the user of the deployment can open it, so that no secret is written to a file or a command line.
"""

from collections.abc import Callable

from aiohttp import web

from jigsaw_triton.console.web.settings import ConsoleSettings
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.servers.socket_api import SocketApi

GRACE_S = 1.0
"""Seconds that calls in progress have at the end of the console."""


def url_socket(paths: Paths, settings: ConsoleSettings, url: Callable[[], str]) -> SocketApi:
    """Returns the API at which a console answers.

    Args:
        paths: Paths of the deployment.
        settings: Settings of the console.
        url: Function that returns a new URL.
    """

    async def give(_: web.Request) -> web.Response:
        return web.json_response({"url": url(), "options": settings.to_json()})

    return SocketApi(paths.console_socket, [web.post("/url", give)], owner="console", grace_s=GRACE_S)
