"""One controller a deployment: a lock that is held until the process that took it has ended."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jigsaw_triton.errors import StateError


class AlreadyRunsError(StateError):
    """Another process has the lock. Its exit code, EX_TEMPFAIL of sysexits.h, tells `deploy` so."""

    exit_code = 75


def take_lock(path: Path) -> int:
    """Takes the lock until this process has ended: whoever waits for it then finds nothing of the process.

    Args:
        path: Made if it does not exist; its folder must.

    Returns:
        File descriptor that holds the lock. Closing it releases the lock before the process ends.

    Raises:
        AlreadyRunsError: Another process has it.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise AlreadyRunsError("a controller runs here already", where=str(path.parent)) from error
    return file


def wait_unlocked(path: Path) -> None:
    """Waits until nobody has the lock; a file that does not exist is free. Blocks."""
    if path.exists():
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until nobody has the lock, and has it meanwhile. Blocks.

    Args:
        path: Made if it does not exist; its folder must.
    """
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
