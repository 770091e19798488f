"""Logs to which servers and their stubs append directly: opening, rotating, reading and quoting them."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jigsaw_triton.logs import readable

MAX_BYTES = 8 * 2**20
"""Size in bytes above which a log is rotated; one older log is kept."""

_ROTATE_INTERVAL_S = 5.0

_QUOTED_LINES = 15
"""Largest number of lines that a message quotes. A convention: it shows the end of most tracebacks."""


@contextmanager
def appending(log: Path) -> Iterator[int]:
    """Opens a log, which is created if it is missing, as the output of processes that are started in the `with` block.

    In append mode, lines of several processes do not overwrite each other, and rotation can truncate. Only the owner
    can read the log.

    Yields:
        The file descriptor.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def log_size(log: Path) -> int:
    """Returns the size of a log in bytes; 0 if it is missing."""
    return log.stat().st_size if log.exists() else 0


def rotate(log: Path, max_bytes: int = MAX_BYTES) -> bool:
    """Moves the content of a long log to `<log>.1`; processes that append to the log continue at its new end.

    The file is truncated instead of replaced, because its writers would keep writing to the old file. Lines that they
    write between the copy and the truncation are lost.

    Args:
        log: Path of the log, which may be missing.
        max_bytes: Size up to which a log is not rotated.

    Returns:
        True if the log was rotated.
    """
    if not log.is_file() or log.stat().st_size <= max_bytes:
        return False
    shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    with log.open("r+b") as file:
        file.truncate(0)
    return True


async def keep_short(log: Path) -> None:
    """Rotates a log whenever it is long, until this is cancelled."""
    while True:
        await asyncio.sleep(_ROTATE_INTERVAL_S)
        # The disk may be full for a time.
        with suppress(OSError):
            await asyncio.to_thread(rotate, log)


def tail(log: Path, lines: int, *, since: int = 0) -> list[str]:
    """Returns the last lines of a log, or none if it is missing.

    Args:
        log: Path of the log.
        lines: Largest number of lines.
        since: Byte offset before which nothing is read, unless the log has been rotated since.
    """
    if not log.is_file():
        return []
    size = log.stat().st_size
    with log.open("rb") as file:
        file.seek(max(since if since <= size else 0, size - lines * 1024, 0))
        return file.read().decode(errors="replace").splitlines()[-lines:]


def excerpt(log: Path, *, since: int = 0) -> str:
    """Returns the last lines of a log for a message, each indented on a line of its own; empty if there are none.

    Args:
        log: Path of the log.
        since: Byte offset before which nothing is read; see `tail`.
    """
    return "".join(f"\n  {readable(line)}" for line in tail(log, _QUOTED_LINES, since=since))


def with_log(message: str, log: Path, *, since: int = 0) -> str:
    """Returns an error message about a process, with the last lines of its log if there are any.

    Args:
        message: Message without the log.
        log: Path of the log.
        since: Byte offset before which nothing is read; see `tail`.
    """
    lines = excerpt(log, since=since)
    return f"{message}; its log ends with:{lines}" if lines else message
