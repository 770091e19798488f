"""Lock that keeps a second controller from starting. The process that takes it holds it until it ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jigsaw_triton.errors import StateError

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
    return file


def wait_unlocked(path: Path, timeout_s: float) -> bool:
    """Waits until no process holds the lock; returns False if one still does after that time. Blocks."""
    give_up_at = time.monotonic() + timeout_s
    while is_locked(path):
        if time.monotonic() > give_up_at:
            return False
        time.sleep(_POLL_S)
    return True


def is_locked(path: Path) -> bool:
    """True if a process has the lock now; a file that does not exist is free."""
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
