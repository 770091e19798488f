"""The console's process.

`python -m jigsaw_triton.console.web.process STATE_DIR PORT` runs that of `deploy --console`.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from jigsaw_triton.console.web.access import Access
from jigsaw_triton.console.web.assets import load_assets
from jigsaw_triton.console.web.live import Running
from jigsaw_triton.console.web.records import Records
from jigsaw_triton.console.web.running import LOG, assets_dir, check_port, running_console
from jigsaw_triton.console.web.server import ConsoleServer
from jigsaw_triton.console.web.settings import ConsoleSettings
from jigsaw_triton.console.web.url_socket import GRACE_S, url_socket
from jigsaw_triton.controller.persistence.paths import Paths, deployment_paths
from jigsaw_triton.errors import JigsawError, StateError
from jigsaw_triton.servers.logfile import rotate

log = logging.getLogger(__name__)

_CHECK_S = 2.0
"""Seconds between two checks of whether the deployment of the console has been taken down."""


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
        announce: Function that receives the URL that opens the console, once it listens.
        with_deployment: True to end when the deployment is taken down.

    Raises:
        InputError: The settings are unsafe, or the port is in use.
        StateError: There is no deployment in the folder, or its console is running already.
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
        runner = web.AppRunner(server.app, handle_signals=False, shutdown_timeout=GRACE_S, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, settings.address, settings.port, ssl_context=tls)
            await site.start()
            port = int(runner.addresses[0][1])

            def url() -> str:
                base = settings.url(port)
                return f"{base}/" if access.has_password else f"{base}/login?token={access.new_token()}"

            api = url_socket(paths, settings, url)
            await api.start()
            try:
                announce(url())
                await _until_end(paths, records if with_deployment else None)
            finally:
                await api.stop()
        finally:
            await runner.cleanup()

    asyncio.run(serve())


async def _until_end(paths: Paths, records: Records | None) -> None:
    """Waits for a signal, or until the deployment has been taken down if its records are given.

    Its log, which only a deployment's own console has, is kept short meanwhile.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopping.set)
    while not stopping.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _CHECK_S if records is not None else None)
        if records is None:
            continue
        try:
            await asyncio.to_thread(rotate, paths.log(LOG))
        except OSError as error:
            log.warning("the log cannot be rotated: %s", error)
        if await _has_stopped(records):
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
        # The URL is not announced here: the command that has started this process asks the socket for it.
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
