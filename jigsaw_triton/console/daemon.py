"""Controller process: it composes the controller, takes the lock, and runs until the deployment is down."""

import asyncio
import logging
import logging.handlers
import os
import secrets
import shutil
import signal
from contextlib import closing
from pathlib import Path

from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.console.server import Read, StatusServer
from jigsaw_triton.controller.checkpoint import load
from jigsaw_triton.controller.executor import Executor
from jigsaw_triton.controller.fleet import Fleet
from jigsaw_triton.controller.journal import Journal
from jigsaw_triton.controller.lock import take_lock
from jigsaw_triton.controller.paths import Paths
from jigsaw_triton.controller.recovery import recovered, unfinished
from jigsaw_triton.controller.settings import Settings
from jigsaw_triton.controller.shell import Controller
from jigsaw_triton.controller.state import Phase, State
from jigsaw_triton.errors import StateError
from jigsaw_triton.resources import templates_dir
from jigsaw_triton.servers.installation import Installation
from jigsaw_triton.servers.os_process import start_time

_LOG_BYTES = 8 * 2**20


def run_controller(
    paths: Paths, installation: Installation, read: Read, settings: Settings, *, resume: bool = False
) -> None:
    """Runs a controller in this process until its deployment has been taken down.

    A signal that ends the controller leaves the servers running.

    Args:
        paths: Paths of the deployment, created if missing.
        installation: Tritonserver to run.
        read: Function that reads deploy requests.
        settings: Settings of the control loop.
        resume: True if this controller replaces one that died. It then repeats the user's last request, if that was not
            carried out yet. Otherwise a deploy request follows.

    Raises:
        AlreadyRunsError: A controller of this deployment is already running.
        StateError: The state of the last controller cannot be read, and `resume` requires it.
    """
    paths.create()
    take_lock(paths.lock)
    _log_to(paths.log("controller"))
    with closing(Journal(paths.journal)) as journal:
        try:
            asyncio.run(_serve(paths, installation, journal, read, settings, resume))
        finally:
            if not journal.servers():
                journal.forget_checkpoint()
                shutil.rmtree(paths.run, ignore_errors=True)
                paths.secret.unlink(missing_ok=True)


async def _serve(
    paths: Paths, installation: Installation, journal: Journal, read: Read, settings: Settings, resume: bool
) -> None:
    controller: Controller

    def exited(name: str, status: int) -> None:
        controller.exited(name, status)

    def noticed(kind: str, text: str) -> None:
        controller.noticed(kind, text)

    before = _last_state(journal, resume)
    if resume and before is None:
        return
    fleet = Fleet(paths, installation, journal, _secret(paths), exited, noticed, survives=True)
    executor = Executor(paths, fleet, load_templates(templates_dir()), journal)
    controller = Controller(executor, fleet, journal, settings, recovered(before) if before is not None else None)
    server = StatusServer(paths.control_socket, controller, fleet, journal, read)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, controller.leave)
    await controller.adopt()
    await server.start()
    wanted = unfinished(before) if before is not None and resume else None
    if wanted is not None:
        await controller.deploy(wanted)
    try:
        state = await controller.run()
    finally:
        await server.stop()
    if state.phase is not Phase.STOPPED and journal.servers():
        # No task is cancelled, since that would undo what is under way: the next controller sees to it.
        journal.close()
        logging.shutdown()
        os._exit(0)


def _last_state(journal: Journal, resume: bool) -> State | None:
    """State that the last controller left; None where nothing of it runs.

    Raises:
        StateError: It cannot be read, and `resume` asks for it.
    """
    try:
        state = load(journal)
    except StateError as error:
        if resume:
            raise
        journal.event("error", f"{error}: the servers that the last controller left are ended")
        return None
    running = any(start_time(record.pid) == record.started for record in journal.servers())
    return state if running or resume else None


def _secret(paths: Paths) -> str:
    """Secret of the deployment, which its servers know; made with the first of them."""
    try:
        return paths.secret.read_text(encoding="ascii")
    except FileNotFoundError:
        # Whole or not at all: an empty secret would keep nobody out.
        fresh = paths.secret.with_name(".secret")
        fresh.touch(mode=0o600)
        fresh.write_text(secrets.token_urlsafe(24), encoding="ascii")
        return fresh.replace(paths.secret).read_text(encoding="ascii")


def _log_to(path: Path) -> None:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
