"""Rotation and reading of the logs to which servers and their stubs append directly."""

import shutil
from pathlib import Path

MAX_BYTES = 8 * 2**20
"""Size in bytes above which a log is rotated; one older log is kept."""


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
