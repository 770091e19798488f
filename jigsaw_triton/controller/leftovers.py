"""Ends what a controller that was killed left, by its journal: servers on their way out, and MIG instances."""

import contextlib
import os
import signal
import time
from pathlib import Path

from jigsaw_triton.controller.journal import Journal, ServerRecord
from jigsaw_triton.controller.ownership import ours
from jigsaw_triton.errors import InstanceInUseError
from jigsaw_triton.gpus.driver import MigDriver
from jigsaw_triton.servers.process import group_members, sweep

_POLL_S = 0.02
_IN_USE_TRIES = 25
_IN_USE_WAIT_S = 0.2


def end_leftovers(journal: Journal, driver: MigDriver) -> int:
    """Kills the servers and destroys the MIG instances that the journal knows of. Blocks.

    Args:
        journal: Of the deployment, whose controller must be gone.
        driver: Of MIG.

    Returns:
        How many servers and instances were still there.

    Raises:
        InstanceInUseError: Somebody else's process holds one of the instances.
    """
    ended = 0
    for record in journal.servers():
        ended += bool(_processes(record))
        while processes := _processes(record):
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(_POLL_S)
        sweep(record.shm_prefix)
        journal.forget_server(record.name)
    for instance in ours(driver.instances(), journal):
        ended += 1
        destroy_instance(driver, instance.uuid)
    for instance in journal.instances():
        journal.forget_instance(instance.uuid)
    for gpu, placement in journal.creations():
        journal.end_creation(gpu, placement)
    return ended


def destroy_instance(driver: MigDriver, uuid: str) -> None:
    """Destroys a MIG instance, giving whoever holds it a few seconds to let go. Blocks.

    Monitoring agents hold an instance for a moment, and so does a process that was just killed.

    Raises:
        InstanceInUseError: It was still held at the end.
    """
    for attempt in range(_IN_USE_TRIES):
        try:
            return driver.destroy(uuid)
        except InstanceInUseError:
            if attempt == _IN_USE_TRIES - 1:
                raise
            time.sleep(_IN_USE_WAIT_S)


def _processes(record: ServerRecord) -> list[int]:
    """The living processes of a server: its group, or what is left of it."""
    members = group_members(record.pid)
    if start_time(record.pid) == record.started:
        return members
    # Its stubs outlive it by a moment. They name their regions on their command lines; nobody else does.
    return [process for process in members if record.shm_prefix.encode() in _command_line(process)]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def start_time(pid: int) -> int | None:
    """When a process was started, in the kernel's ticks; None where there is none."""
    try:
        # After the command's name in parentheses; the 22nd field of the whole line.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None
