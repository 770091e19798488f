"""Waiting until nothing of a worker's model is under way."""

import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DRAIN_INTERVAL_S = 0.005

_FLOCK = "hhqqi4x"
"""Layout of the kernel's `struct flock`: type, whence, start, length, process."""


@contextmanager
def drained(
    path: Path,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[bool]:
    """Locks the slot file of a worker's model, once nothing of it is under way, until the `with` block ends.

    The gateway locks the file's first byte while it has calls under way there, and the kernel ends the lock with the
    gateway. Take the model off the routes first: a front that still has it there sends nothing while the block lasts.
    Blocks: call it in a thread from asyncio code.

    Args:
        path: `slots/<worker>/<model>` in the run directory; made where it is missing.
        timeout_s: Seconds to wait.
        clock: Clock, in seconds.
        sleep: Function that sleeps for seconds.

    Yields:
        Whether the file could be locked, so that nothing is under way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        give_up_at = clock() + timeout_s
        while not (locked := _lock(descriptor)) and clock() < give_up_at:
            sleep(DRAIN_INTERVAL_S)
        yield locked
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Locks the first byte, unless the gateway holds it.

    The lock belongs to the open file, so that another look at the same file does not end it.
    """
    first_byte = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, first_byte)
    except (BlockingIOError, PermissionError):
        return False
    return True
