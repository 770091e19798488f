"""Controller process: it composes the controller, takes the lock, and runs until the deployment is down."""

import asyncio
import logging
import logging.handlers
import os
import shutil
import signal
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NoReturn

from jigsaw_triton.background import end_tasks
from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.console.metrics_server import serve_metrics
from jigsaw_triton.console.options import DEFAULTS, ProcessOptions
from jigsaw_triton.console.server import Read, StatusServer
from jigsaw_triton.console.threads import started_pool
from jigsaw_triton.controller.core.events import Event
from jigsaw_triton.controller.core.generation import ChangeRequest
from jigsaw_triton.controller.core.recovery import recovered, unfinished
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.controller.executor import Executor
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.fleet.orphans import reclaim
from jigsaw_triton.controller.fleet.succession import ReplacedError
from jigsaw_triton.controller.persistence.checkpoint import UnknownFormatError, check_format, load
from jigsaw_triton.controller.persistence.epoch import SupersededError
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.load_history import LoadHistory
from jigsaw_triton.controller.persistence.lock import BEAT_S, beat, begin_heartbeat, take_over
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.controller.persistence.records import LEFT, REPLACED, REPLACED_FACT
from jigsaw_triton.controller.persistence.secret import deployment_secret
from jigsaw_triton.controller.planning.process import PlanningProcess
from jigsaw_triton.controller.shell import Controller
from jigsaw_triton.errors import JigsawError, StateError
from jigsaw_triton.logs import formatter
from jigsaw_triton.resources import templates_dir
from jigsaw_triton.servers.installation import Installation
from jigsaw_triton.servers.members import members

log = logging.getLogger(__name__)

_LOG_BYTES = 8 * 2**20

UNREADABLE = 65
"""Exit code of a controller that cannot read the state of the one before (EX_DATAERR of sysexits.h)."""

REPLACED_EXIT = 77
"""Exit code of a controller that one on another machine has replaced (EX_NOPERM of sysexits.h)."""

_REPEATS_FACT = "repeats"
"""Journal key of the last generation, and how often a request was repeated since."""

_COLLECT_S = 60.0
"""Seconds between two looks for copies of model files that are no longer used."""

_MAX_REPEATS = 2
"""Times that a request is repeated after controllers that died while they carried it out."""


def run_controller(
    paths: Paths,
    installation: Installation,
    read: Read,
    settings: Settings,
    *,
    resume: bool = False,
    options: ProcessOptions = DEFAULTS,
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
        options: Options of this process.

    Raises:
        AlreadyRunsError: A controller of this deployment is already running.
        UnknownFormatError: A release that this one does not know left servers that are running.
        StateError: The state of the last controller cannot be read, and `resume` requires it.
    """
    paths.create()
    lock, killed = take_over(paths.lock)
    _log_to(paths.log("controller"), options)
    _check_format(paths, resume)
    with closing(Journal(paths.journal, _end_superseded, paths.epoch)) as journal:
        if killed is not None:
            journal.event("takeover", f"the previous controller, process {killed}, hung and was killed")
        down = False
        try:
            down = asyncio.run(_serve(paths, lock, installation, journal, read, settings, resume, options))
        finally:
            # A deployment that was served is left to the next controller, even if none of its servers is left.
            if down or not (journal.checkpoint()[1] or members(paths.state)):
                journal.forget_checkpoint()
                for folder in (paths.run, paths.contents):
                    shutil.rmtree(folder, ignore_errors=True)
                paths.secret.unlink(missing_ok=True)


async def _serve(
    paths: Paths,
    lock: int,
    installation: Installation,
    journal: Journal,
    read: Read,
    settings: Settings,
    resume: bool,
    options: ProcessOptions,
) -> bool:
    """Runs the controller. Returns True if nothing of the deployment is left."""
    controller: Controller
    loop = asyncio.get_running_loop()
    loop.set_default_executor(started_pool())

    def notify(event: Event) -> None:
        controller.notify(event)

    before = _last_state(journal, paths, resume)
    state = recovered(before) if before is not None else None
    request = _repeated(journal, before) if before is not None and resume else None
    if resume and state is None and request is None:
        return True
    fleet = Fleet(paths, installation, journal, deployment_secret(paths), notify, survives=True)
    with PlanningProcess() as planning:
        executor = Executor(paths, fleet, load_templates(templates_dir()), journal, planning)
        controller = Controller(executor, fleet, journal, settings, state, LoadHistory(paths.load))
        fleet.nodes.on_replaced, fleet.nodes.on_surpass = controller.give_way, executor.renew
        server = StatusServer(paths.control_socket, controller, fleet, journal, read, options)
        tasks = [asyncio.create_task(_beat(lock), name="heartbeat")]
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, controller.leave)
        try:
            await controller.adopt()
        except ReplacedError as error:
            await _give_way(controller, fleet, journal, error)
        journal.keep_fact(REPLACED_FACT, "")
        # The planner's process starts only now, because adoption does not need it and would be delayed by it.
        try:
            planning.start()
        except JigsawError as error:
            log.warning("%s", error)
        if request is not None:
            await controller.ask(request)
        await server.start()
        tasks.append(asyncio.create_task(_collect(fleet, controller, journal), name="collection of model files"))
        if options.metrics is not None:
            serving = serve_metrics(options.metrics, server.metrics, partial(journal.event, "error"))
            tasks.append(asyncio.create_task(serving, name="metrics"))
        try:
            last = await controller.run()
            if last.phase is Phase.STOPPED:
                # Ray may take seconds to end the agents, so the heartbeat must continue meanwhile.
                await fleet.close()
        except ReplacedError as error:
            await _give_way(controller, fleet, journal, error)
        finally:
            # A deploy that was not accepted yet may still copy model files, and this process would wait for the copies.
            fleet.files.stop()
            await end_tasks(*tasks)
            await server.stop()
        if last.phase is not Phase.STOPPED and last.wanted is not None:
            journal.event(LEFT, "the controller has ended; its servers go on without it")
            # No task is cancelled: that would undo actions in progress, which the next controller completes.
            journal.close()
            logging.shutdown()
            os._exit(0)
    return True


async def _give_way(controller: Controller, fleet: Fleet, journal: Journal, error: ReplacedError) -> NoReturn:
    """Ends the servers of this machine and this process, because a controller on another machine has replaced it."""
    journal.keep_fact(REPLACED_FACT, error.message)
    await controller.cancel()
    try:
        await fleet.give_way()
    except JigsawError as failure:
        journal.event("error", f"not everything has ended: {failure}")
    journal.event(REPLACED, f"{error.message}; its servers have ended", StateError.exit_code)
    log.critical("%s; this controller has ended its servers, and ends", error)
    journal.close()
    logging.shutdown()
    os._exit(REPLACED_EXIT)


async def _beat(lock: int) -> None:
    """Shows that the event loop runs."""
    begin_heartbeat(lock)
    while True:
        beat(lock)
        await asyncio.sleep(BEAT_S)


async def _collect(fleet: Fleet, controller: Controller, journal: Journal) -> None:
    """Removes copies of model files that no generation uses any more."""
    while True:
        await asyncio.sleep(_COLLECT_S)
        try:
            await asyncio.to_thread(fleet.files.collect, controller.state, journal)
        except (JigsawError, OSError) as error:
            log.warning("model files that are no longer used were not removed: %s", error)


def _end_superseded(error: SupersededError) -> None:
    """Ends this process at once, in whichever thread: another controller has taken over, and owns all servers."""
    log.critical("%s; it ends and leaves the servers alone", error)
    logging.shutdown()
    os._exit(error.exit_code)


def _repeated(journal: Journal, before: State) -> ChangeRequest | None:
    """Returns the user's last request if it is to be repeated; None if there is none, or if it killed controllers."""
    request = unfinished(before)
    if request is None:
        return None
    # A solve that succeeds takes the next generation, so the count is that of controllers that died before a solve
    # succeeded.
    generation, _, count = journal.fact(_REPEATS_FACT).partition(":")
    repeats = int(count) + 1 if generation == str(journal.last_generation()) else 1
    if repeats > _MAX_REPEATS:
        text = f"the last deploy is given up: the controller died {repeats} times while it carried it out"
        journal.event("error", text, JigsawError.exit_code)
        return None
    journal.keep_fact(_REPEATS_FACT, f"{journal.last_generation()}:{repeats}")
    return request


def _check_format(paths: Paths, resume: bool) -> None:
    """Checks that this release can read the state of the last controller where it matters.

    Raises:
        UnknownFormatError: This release cannot read the state, and servers run or `resume` asks for it. The servers go
            on.
    """
    if not (resume or members(paths.state)):
        return
    try:
        check_format(paths.journal)
    except UnknownFormatError as error:
        error.exit_code = UNREADABLE
        raise
    except StateError:
        pass  # `Journal` moves a damaged file aside.


def _last_state(journal: Journal, paths: Paths, resume: bool) -> State | None:
    """Returns the state that the last controller left; None where nothing of it runs.

    Raises:
        StateError: The state is lost or cannot be read, servers run, and `resume` asks for it. The servers go on.
    """
    running = bool(members(paths.state))
    try:
        state = load(journal)
        if state is None and running:
            raise StateError("is lost", where="the checkpoint in the journal")
    except StateError as error:
        if resume:
            error.exit_code = UNREADABLE
            raise
        journal.event("error", f"{error}: the next deploy replaces the servers that the last controller left")
        reclaim(journal, paths)
        return None
    if state is None or state.phase is Phase.STOPPED:
        return None
    # Workers on other machines go on whatever happens to this one, such as a reboot.
    elsewhere = state.wanted is not None and state.wanted.cluster.agents is not None and bool(state.actual.workers)
    return state if running or resume or elsewhere else None


def _log_to(path: Path, options: ProcessOptions) -> None:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1)
    handler.setFormatter(formatter(options.log_format or "text"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
