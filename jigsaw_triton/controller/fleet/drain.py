"""Draining: waiting until a worker's model has no calls in flight, or a generation no requests."""

import asyncio
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DRAIN_INTERVAL_S = 0.005

_FLOCK = "hhqqi4x"
"""Layout of the kernel's `struct flock`: type, whence, start, length, process."""


async def drained(path: Path, timeout_s: float) -> bool:
    """Waits until the gateway does not use a model or a generation. Returns False if it still does at the timeout.

    Remove the model from the routes first, or close the entries of the generation: a front that still routes to it
    would go on using it.

    Args:
        path: Slot file, `slots/<worker>/<model>` in the run directory, or the file of a generation,
            `generations/<graph>.<generation>`. Created if missing.
        timeout_s: Seconds to wait.
    """
    give_up_at = time.monotonic() + timeout_s
    while True:
        with locked(path) as unused:
            if unused or time.monotonic() >= give_up_at:
                return unused
        # The wait takes no thread, because a change may drain the models of hundreds of workers at once.
        await asyncio.sleep(DRAIN_INTERVAL_S)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Locks the file of a model or a generation until the `with` block ends, unless the gateway uses it.

    The gateway locks the first byte of a model's file while it has calls in flight there, and of a generation's file
    while the generation alone may answer one of its requests. The kernel releases the lock if the gateway dies. During
    the block, the gateway begins no such call or request.

    Yields:
        True if the file is locked, so that no call is in flight or no request is bound to the generation.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Locks the first byte of an open file. Returns False if the gateway holds it.

    The lock belongs to the open file description: closing another descriptor of the same file does not release it.
    """
    first_byte = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, first_byte)
    except (BlockingIOError, PermissionError):
        return False
    return True
