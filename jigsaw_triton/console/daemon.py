"""Controller process: it composes the controller, takes the lock, and runs until the deployment is down."""

import asyncio
import logging
import logging.handlers
import secrets
import shutil
import signal
from pathlib import Path

from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.console.server import Read, StatusServer
from jigsaw_triton.controller.executor import Executor
from jigsaw_triton.controller.fleet import Fleet
from jigsaw_triton.controller.journal import Journal
from jigsaw_triton.controller.lock import take_lock
from jigsaw_triton.controller.paths import Paths
from jigsaw_triton.controller.settings import Settings
from jigsaw_triton.controller.shell import Controller
from jigsaw_triton.resources import templates_dir
from jigsaw_triton.servers.installation import Installation

_LOG_BYTES = 8 * 2**20


def run_controller(paths: Paths, installation: Installation, read: Read, settings: Settings) -> None:
    """Runs a controller in this process until its deployment has been taken down.

    Args:
        paths: Paths of the deployment, created if missing.
        installation: Tritonserver to run.
        read: Function that reads deploy requests.
        settings: Settings of the control loop.

    Raises:
        AlreadyRunsError: A controller of this deployment is already running.
    """
    paths.create()
    take_lock(paths.lock)
    _log_to(paths.log("controller"))
    try:
        asyncio.run(_serve(paths, installation, read, settings))
    finally:
        shutil.rmtree(paths.run, ignore_errors=True)


async def _serve(paths: Paths, installation: Installation, read: Read, settings: Settings) -> None:
    journal = Journal(paths.journal)
    controller: Controller

    def exited(name: str, status: int) -> None:
        controller.exited(name, status)

    def noticed(kind: str, text: str) -> None:
        controller.noticed(kind, text)

    fleet = Fleet(paths, installation, journal, secrets.token_urlsafe(24), exited, noticed)
    executor = Executor(paths, fleet, load_templates(templates_dir()), journal)
    controller = Controller(executor, fleet, journal, settings)
    server = StatusServer(paths.control_socket, controller, fleet, journal, read)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, controller.down)
    await server.start()
    try:
        await controller.run()
    finally:
        await server.stop()
        journal.close()


def _log_to(path: Path) -> None:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
