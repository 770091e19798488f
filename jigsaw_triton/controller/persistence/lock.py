"""Lock that keeps a second controller from starting. The process that takes it holds it until it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jigsaw_triton.errors import StateError


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


def wait_unlocked(path: Path) -> None:
    """Waits until no process holds the lock. Returns at once if the file does not exist. Blocks."""
    if path.exists():
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)


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
