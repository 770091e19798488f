"""The console's process: `python -m jigsaw_triton.console.web.process STATE_DIR PORT` for a deployment's own console.

A socket of the deployment's user gives out URLs that open the console, so that no secret is written to a file or a
command line.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import socket as sockets
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from jigsaw_triton.console.web.access import Access
from jigsaw_triton.console.web.assets import load_assets
from jigsaw_triton.console.web.live import Running
from jigsaw_triton.console.web.records import Records
from jigsaw_triton.console.web.server import ConsoleServer
from jigsaw_triton.console.web.settings import ConsoleSettings
from jigsaw_triton.controller.persistence.paths import Paths, deployment_paths
from jigsaw_triton.errors import InputError, JigsawError, StateError
from jigsaw_triton.servers.ports import check_free
from jigsaw_triton.servers.socket_api import SocketApi

log = logging.getLogger(__name__)

ASSETS_VARIABLE = "JIGSAW_CONSOLE_ASSETS"
"""Environment variable with another folder of built pages, for work on them."""

_CHECK_S = 2.0
"""Seconds between two looks whether the deployment of the console has been taken down."""

_ANSWER_S = 20.0
"""Seconds that a running console may take to answer the command line."""

_GRACE_S = 1.0
"""Seconds that calls in progress have at the end."""


def run_console(
    paths: Paths,
    settings: ConsoleSettings,
    announce: Callable[[str], None],
    *,
    with_deployment: bool = False,
) -> None:
    """Runs the console in this process until SIGTERM or SIGINT.

    Args:
        paths: Paths of the deployment.
        settings: Settings of the console.
        announce: Receives the URL that opens the console, once it listens.
        with_deployment: True to end when the deployment is taken down.

    Raises:
        InputError: The settings are unsafe, or the port is in use.
        StateError: There is no deployment in the folder, or its console runs already.
        MissingDependencyError: The pages have not been built.
    """
    settings = settings.checked()
    loaded, tls = load_assets(assets_dir()), settings.tls()
    if not paths.state.is_dir():
        hint = "deploy with `jigsaw-triton deploy GRAPH`, or name another deployment with --state"
        raise StateError("nothing was deployed here yet", where=str(paths.state), hint=hint)
    if running_console(paths) is not None:
        hint = "`jigsaw-triton console` prints a URL that opens it"
        raise StateError("the console of this deployment is running already", where=str(paths.state), hint=hint)
    check_port(settings)
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    paths.create()
    access, records = Access(settings.password), Records(paths)

    async def serve() -> None:
        server = ConsoleServer(settings, access, loaded, Running(paths), records, str(paths.state))
        runner = web.AppRunner(server.app, handle_signals=False, shutdown_timeout=_GRACE_S, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, settings.address, settings.port, ssl_context=tls)
            await site.start()
            port = int(runner.addresses[0][1])

            def url() -> str:
                base = settings.url(port)
                return f"{base}/" if access.has_password else f"{base}/login?token={access.new_token()}"

            async def give(_: web.Request) -> web.Response:
                return web.json_response({"url": url()})

            desk = SocketApi(paths.console_socket, [web.post("/url", give)], owner="console", grace_s=_GRACE_S)
            await desk.start()
            try:
                announce(url())
                await _until_end(records if with_deployment else None)
            finally:
                await desk.stop()
        finally:
            await runner.cleanup()

    asyncio.run(serve())


def assets_dir() -> Path:
    """Returns the folder of the built pages."""
    given = os.environ.get(ASSETS_VARIABLE)
    return Path(given) if given else Path(__file__).parents[1] / "assets"


def check_port(settings: ConsoleSettings) -> None:
    """Checks that the console's port is free.

    Raises:
        InputError: Another process has it, or this user may not listen there.
    """
    try:
        check_free(settings.address, settings.port)
    except InputError as error:
        hint = "choose another one, such as --port 8090, or end that process"
        raise InputError(error.message, where=error.where, hint=hint) from error


def running_console(paths: Paths) -> str | None:
    """Returns a URL that opens the running console of a deployment; None if none is running. Blocks."""
    request = b"POST /url HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    try:
        with sockets.socket(sockets.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_S)
            connection.connect(str(paths.console_socket))
            connection.sendall(request)
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        return str(json.loads(answer.partition(b"\r\n\r\n")[2])["url"])
    except (OSError, ValueError, KeyError):
        return None


async def _until_end(records: Records | None) -> None:
    """Waits for a signal, or until the deployment has been taken down if its records are given."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)
    while not stopping.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _CHECK_S if records is not None else None)
        if records is not None and await _has_stopped(records):
            return


async def _has_stopped(records: Records) -> bool:
    try:
        return await asyncio.to_thread(records.has_stopped)
    except JigsawError as error:
        log.warning("%s", error)
        return False


def main(state: str, port: int) -> int:
    """Runs the console that `deploy --console` starts; returns the exit code."""
    paths = deployment_paths(Path(state))
    try:
        # The command that has started this process asks the socket for the URL.
        run_console(paths, ConsoleSettings(port=port), lambda _: None, with_deployment=True)
    except JigsawError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("state")
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    sys.exit(main(arguments.state, arguments.port))
