"""The controller's process: starting it, what it will find, and cleaning up after it."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from jigsaw_triton.api.supervisor import REPLACED
from jigsaw_triton.console.options import DEFAULTS, ProcessOptions
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.lock import AlreadyRunsError, heartbeat, take_over, wait_unlocked
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.controller.persistence.records import (
    IDENTITY_FACT,
    REPLACED_FACT,
    STANDBY_GATEWAY_FACT,
    STOPPED,
    WORKERS_FACT,
)
from jigsaw_triton.errors import StateError
from jigsaw_triton.gpus.model import Cluster, MigInstance
from jigsaw_triton.servers.background_process import BackgroundProcess, started
from jigsaw_triton.servers.ports import check_free

_REPLACED_HINT = (
    "send requests there. `jigsaw-triton down` forgets the deployment here. To bring it back, keep a standby gateway "
    "on this machine, and run `jigsaw-triton takeover`"
)

WAIT_HINT = "wait for it: `jigsaw-triton status --wait ready`"

_SUPERVISOR, _CONTROLLER = "jigsaw_triton.api.supervisor", "jigsaw_triton.api.daemon"
"""Modules that the supervisor and the controller run."""

_START_S = 60.0
"""Seconds that a controller may take until it shows that it runs. It then reconciles the nodes before it answers,
which takes as long as they need."""

_REPORT_AFTER_S = 10.0
"""Seconds after which a wait for a controller is reported with its reason."""

_KILLED_S = 10.0
"""Seconds that a controller may take to end after SIGKILL."""

_POLL_S = 0.05


def start(
    paths: Paths,
    supervisor_pid: Callable[[], int | None],
    options: ProcessOptions = DEFAULTS,
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """Starts a supervised controller in a session of its own, and waits until it answers.

    Args:
        paths: Paths of the deployment; its folders are created.
        supervisor_pid: Function that returns the process id of the supervisor of the controller that answers; None if
            none does.
        options: Options of the controller's process.
        report: Function that receives a note if it takes long.

    Raises:
        InputError: The port for its metrics is in use.
        StateError: Another process has just started a controller.
        JigsawError: The controller did not start. It is ended.
    """
    if options.metrics is not None:
        check_free(options.metrics.address, options.metrics.port)
    paths.create()
    command = [sys.executable, "-P", "-m", _SUPERVISOR, str(paths.state)]
    log, env = paths.log("controller"), options.environment()
    with started("the controller", command, log, env, end_with=signal.SIGTERM) as process:
        _wait_started(paths, process, supervisor_pid, report)


def _wait_started(
    paths: Paths,
    process: BackgroundProcess,
    supervisor_pid: Callable[[], int | None],
    report: Callable[[str], None],
) -> None:
    began_s = beat_s = time.monotonic()
    last, owner, reported = heartbeat(paths.lock), None, False
    while supervisor_pid() != process.pid:
        now_s, beat = time.monotonic(), heartbeat(paths.lock)
        if beat is not None and beat != last:
            # Only heartbeats of the first controller extend the wait, not those of one that replaces it after a crash.
            owner, last = owner or beat[0], beat
            beat_s = now_s if beat[0] == owner else beat_s
        if not reported and now_s - began_s > _REPORT_AFTER_S:
            reported = True
            report("the controller reconciles the servers, and does not answer yet; see `jigsaw-triton logs`")
        if process.poll() == AlreadyRunsError.exit_code:
            raise StateError("another deploy is under way", where=str(paths.state), hint=WAIT_HINT)
        if process.poll() == REPLACED and (replaced := replacement(paths)) is not None:
            raise replaced
        if process.poll() is not None or now_s - beat_s > _START_S:
            raise process.failure()
        time.sleep(_POLL_S)


def kill(paths: Paths) -> None:
    """Kills the controller and first its supervisor, which would start another. The servers go on. Blocks.

    Raises:
        StateError: The processes do not end.
    """
    for module, lock in ((_SUPERVISOR, paths.supervisor_lock), (_CONTROLLER, paths.lock)):
        _kill_all([b"-m", module.encode(), os.fsencode(paths.state)])
        if not wait_unlocked(lock, _KILLED_S):
            hint = "see which process has this file open: `fuser`, `lsof`"
            raise StateError(f"{module} did not end after SIGKILL", where=str(lock), hint=hint)


def _kill_all(arguments: list[bytes]) -> None:
    """Kills the processes whose program has these first arguments, after Python's option -P if it is given."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # From here on, the id cannot come to stand for another process.
            handle = os.pidfd_open(int(process.name))
            try:
                _, *found = (process / "cmdline").read_bytes().split(b"\0")
                found = found[1:] if found[:1] == [b"-P"] else found
                if found[: len(arguments)] == arguments:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)


def surveyed_with_foreign(paths: Paths, cluster: Cluster) -> Cluster:
    """Returns the cluster's GPUs as their driver reports them, with the MIG instances of others on them.

    GPUs of agents are returned as cluster.yaml has them.

    Raises:
        InputError: The driver does not have these GPUs.
        MigError: The driver does not answer.
    """
    from jigsaw_triton.controller.fleet.ownership import foreign_instances
    from jigsaw_triton.gpus.driver import open_driver
    from jigsaw_triton.gpus.foreign import with_foreign

    if cluster.agents is not None:
        # Only the controller calls the agents.
        return cluster
    driver = open_driver(cluster, paths.state)
    cluster = driver.survey(cluster)
    if not paths.journal.exists():
        return with_foreign(cluster, driver.instances())
    with closing(JournalReader(paths.journal)) as journal:
        return with_foreign(cluster, foreign_instances(driver, journal))


def orphaned_instances(paths: Paths, cluster: Cluster) -> tuple[MigInstance, ...]:
    """Returns the MIG instances that a killed controller left, which the next controller destroys first.

    Raises:
        InputError: The driver does not have these GPUs.
        MigError: The driver does not answer.
    """
    from jigsaw_triton.controller.fleet.orphans import DRIVER_FACT
    from jigsaw_triton.controller.fleet.ownership import ours
    from jigsaw_triton.gpus.driver import open_driver

    if not paths.journal.exists():
        return ()
    with closing(JournalReader(paths.journal)) as journal:
        if journal.fact(DRIVER_FACT) != cluster.driver:
            return ()
        return ours(open_driver(cluster, paths.state).instances(), journal)


def unattended_servers(paths: Paths) -> list[str]:
    """Returns the names of the servers of the deployment that are running, with or without a controller."""
    from jigsaw_triton.servers.members import leaders, members

    return sorted(leaders(members(paths.state)))


def replacement(paths: Paths) -> StateError | None:
    """Returns the error that a controller on another machine has replaced that of a deployment; None if none has."""
    if not paths.journal.exists():
        return None
    message = ""
    # A journal that cannot be read names no successor. The next deploy and `down` move a damaged one aside.
    with suppress(StateError), closing(JournalReader(paths.journal)) as journal:
        message = journal.fact(REPLACED_FACT)
    return StateError(message, where=str(paths.state), hint=_REPLACED_HINT) if message else None


def agents_serve(paths: Paths) -> bool:
    """Returns True if a controller has left workers on other machines, which only a controller can end."""
    from jigsaw_triton.controller.persistence.checkpoint import load

    if not paths.journal.exists() or replacement(paths) is not None:
        return False
    # A state that cannot be read names no agents. The next deploy from this folder ends the servers of the agents that
    # its cluster names.
    with suppress(StateError), closing(JournalReader(paths.journal)) as journal:
        state = load(journal)
        if state is None or state.wanted is None:
            return False
        return state.wanted.cluster.agents is not None and bool(state.actual.workers)
    return False


def check_adoptable(paths: Paths) -> None:
    """Checks that a controller of this release can go on with the servers of the last one.

    Raises:
        StateError: A release that this one does not know started them.
    """
    from jigsaw_triton.controller.persistence.checkpoint import check_format

    check_format(paths.journal)


def check_ports_free(cluster: Cluster) -> None:
    """Checks that no other process listens on the ports of the gateway and the edge.

    Raises:
        InputError: A port is in use, or this user may not listen on it.
    """
    gateway = cluster.gateway
    edge = (cluster.edge.metrics,) if cluster.edge is not None else ()
    for port in (gateway.http, gateway.grpc, gateway.metrics, *edge):
        check_free(gateway.address, port)


def next_generation(paths: Paths) -> int:
    """Returns the number that the next plan will have."""
    if not paths.journal.exists():
        return 1
    with closing(JournalReader(paths.journal)) as journal:
        return journal.last_generation() + 1


def end_orphans(paths: Paths) -> int:
    """Ends the servers and destroys the MIG instances that a killed controller left.

    Returns:
        Number of servers and MIG instances that still existed.

    Raises:
        InstanceInUseError: A process outside the deployment holds a MIG instance.
        StateError: A controller is starting or ending, or the folder is that of an agent that runs.
    """
    from jigsaw_triton.controller.fleet.orphans import end_orphans

    if not paths.journal.exists() and not unattended_servers(paths):
        return 0
    try:
        lock, _ = take_over(paths.lock)
    except AlreadyRunsError as error:
        where = str(paths.state)
        if paths.agent_socket.exists():
            hint = "stop it first; its workers go on, and `jigsaw-triton down` then ends them"
            raise StateError("an agent is running here", where=where, hint=hint) from error
        raise StateError("a controller is starting or ending", where=where, hint="try again in a moment") from error
    try:
        with closing(Journal(paths.journal)) as journal:
            replaced = bool(journal.fact(REPLACED_FACT))
            ended = end_orphans(journal, paths)
            if ended or replaced:
                journal.event(STOPPED, "all servers of the deployment were ended without their controller")
            if replaced:
                # The workers elsewhere belong to the other controller, so the next deployment here is another one.
                journal.keep_fact(REPLACED_FACT, "")
                journal.keep_fact(IDENTITY_FACT, "")
            journal.forget_checkpoint()
            journal.keep_fact(WORKERS_FACT, "")
            journal.keep_fact(STANDBY_GATEWAY_FACT, "")
        for folder in (paths.run, paths.repositories, paths.contents):
            shutil.rmtree(folder, ignore_errors=True)
        paths.secret.unlink(missing_ok=True)
    finally:
        os.close(lock)
    return ended
