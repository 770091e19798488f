"""Lock that keeps a second controller from starting. The process that takes it holds it until it ends.

The owner of a lock shows by its heartbeat that it runs. The next one kills an owner that hangs, so that it does nothing
more.
"""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jigsaw_triton.errors import StateError

BEAT_S = 0.5
"""Seconds between two heartbeats."""

HANG_S = 20.0
"""Seconds without a heartbeat after which an owner counts as hanging. Its supervisor is faster."""

_POLL_S = 0.02


class AlreadyRunsError(StateError):
    """Another process holds the lock. `deploy` recognises it by its exit code, EX_TEMPFAIL of sysexits.h."""

    exit_code = 75


def take_lock(path: Path) -> int:
    """Takes the lock until this process ends. A process that waits for the lock therefore also waits for that end.

    Args:
        path: Lock file, created if missing. Its folder must exist.

    Returns:
        File descriptor that holds the lock. Closing it releases the lock before the process ends.

    Raises:
        AlreadyRunsError: Another process holds the lock.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise AlreadyRunsError("a controller is already running here", where=str(path.parent)) from error
    # The file still has the heartbeat of its previous owner.
    os.ftruncate(file, 0)
    return file


def wait_unlocked(path: Path, timeout_s: float) -> bool:
    """Waits until no process holds the lock; returns False if one still does after that time. Blocks."""
    give_up_at = time.monotonic() + timeout_s
    while is_locked(path):
        if time.monotonic() > give_up_at:
            return False
        time.sleep(_POLL_S)
    return True


def take_over(path: Path, hang_s: float = HANG_S) -> tuple[int, int | None]:
    """Takes the lock as `take_lock` does, but kills an owner whose heartbeat has stopped. Blocks while it watches.

    Args:
        path: Lock file, created if missing. Its folder must exist.
        hang_s: Seconds for which an owner is watched.

    Returns:
        File descriptor that holds the lock, and the process id of the owner that was killed; None if there was none.

    Raises:
        AlreadyRunsError: Another process holds the lock and has a heartbeat, or never had one.
    """
    killed: int | None = None
    seen, watched_s = heartbeat(path), time.monotonic()
    while True:
        try:
            return take_lock(path), killed
        except AlreadyRunsError:
            owner = heartbeat(path)
            if owner is None or owner != seen:
                raise
        if killed is None and time.monotonic() > watched_s + hang_s:
            killed = owner[0]
            with suppress(ProcessLookupError):
                os.kill(killed, signal.SIGKILL)
        time.sleep(_POLL_S)


def end_owner(path: Path, grace_s: float) -> None:
    """Ends the process that holds the lock, if there is one and its file has its process id. Blocks.

    Args:
        path: Lock file.
        grace_s: Seconds after SIGTERM until SIGKILL, and until it is given up after that.

    Raises:
        StateError: The lock is still held.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not is_locked(path):
            return
        if (owner := heartbeat(path)) is not None:
            with suppress(ProcessLookupError):
                os.kill(owner[0], number)
        if wait_unlocked(path, grace_s):
            return
    hint = "see which process has this file open: `fuser`, `lsof`"
    raise StateError("the process that holds this lock does not end", where=str(path), hint=hint)


def begin_heartbeat(lock: int) -> None:
    """Says in the lock's file that its owner has a heartbeat from now on.

    Args:
        lock: Result of `take_lock`.
    """
    # A full disk has no room for it. The owner is then never killed.
    with suppress(OSError):
        os.pwrite(lock, str(os.getpid()).encode(), 0)


def beat(lock: int) -> None:
    """Shows that the owner of a lock runs, by the modification time of the lock's file."""
    os.utime(lock)


def heartbeat(path: Path) -> tuple[int, int] | None:
    """Returns the process id of a lock's owner and the time of its last heartbeat; None if it has none."""
    try:
        with path.open() as file:
            text, beat_ns = file.read(), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None
    return (int(text), beat_ns) if text.isdecimal() else None


def is_locked(path: Path) -> bool:
    """Returns True if a process has the lock now; a file that does not exist is free."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits for the lock and holds it until the `with` block ends. Blocks.

    Args:
        path: Lock file, created if missing. Its folder must exist.
    """
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
