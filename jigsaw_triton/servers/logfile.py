"""A server's log: appended to by the server and its stubs themselves, kept short from outside."""

import shutil
from pathlib import Path

MAX_BYTES = 8 * 2**20
"""Above this the log is rotated; one older log is kept beside it."""


def rotate(log: Path, max_bytes: int = MAX_BYTES) -> bool:
    """Moves what a long log holds to `<log>.1`; whoever has it open for appending goes on at its new end.

    The file itself is emptied and not replaced, because its writers are processes that would keep the old one. What
    they write between the copy and the emptying is lost.

    Args:
        log: May be absent.
        max_bytes: A shorter log is left alone.

    Returns:
        Whether it was rotated.
    """
    if not log.is_file() or log.stat().st_size <= max_bytes:
        return False
    shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    with log.open("r+b") as file:
        file.truncate(0)
    return True


def tail(log: Path, lines: int, *, since: int = 0) -> list[str]:
    """The last lines of a log, none where it is absent.

    Args:
        log: The file.
        lines: How many, at most.
        since: Byte offset before which nothing is read, unless the log was rotated meanwhile.
    """
    if not log.is_file():
        return []
    size = log.stat().st_size
    with log.open("rb") as file:
        file.seek(max(since if since <= size else 0, size - lines * 1024, 0))
        return file.read().decode(errors="replace").splitlines()[-lines:]
