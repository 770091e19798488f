"""SQLite files that may be damaged."""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

_MAGIC = b"SQLite format 3\0"
"""First bytes of every SQLite file."""

_DAMAGE = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA)
"""Primary result codes of a file that is not, or no longer, a journal. SQLITE_ERROR reports a missing table."""

WAL = "-wal"
"""Suffix of the name of the write-ahead log."""

_LONG_LOG_BYTES = 16 * 2**20
"""Size of the write-ahead log above which `flush_log` copies it into the file. A convention."""

COMPANIONS = (WAL, "-shm")
"""Suffixes of the names of the files that SQLite keeps beside its main file."""

NO_OVERWRITING = "PRAGMA secure_delete=OFF"
"""Statement that keeps a build of SQLite from overwriting all that is deleted. Only its owner can read a journal."""


def connect(path: Path) -> sqlite3.Connection:
    """Opens an existing SQLite file."""
    address = f"file:{quote(str(path))}?mode=rw"
    return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)


@contextlib.contextmanager
def transaction(file: sqlite3.Connection) -> Iterator[None]:
    """Carries out all changes of a file inside the `with` block, or none of them. Others cannot write meanwhile."""
    file.execute("BEGIN IMMEDIATE")
    try:
        yield
        file.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back by itself, as it does on a full disk.
        if file.in_transaction:
            file.execute("ROLLBACK")
        raise


class OpenedFile:
    """A descriptor of a file that others may delete, replace or truncate.

    Args:
        path: Path of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = 0

    def is_intact(self) -> bool:
        """Returns True if the file is at its path, has not shrunk since the last call, and begins like SQLite."""
        size = os.fstat(self._descriptor).st_size
        shrunk, self._size = size < self._size, size
        return self.is_at_path() and not shrunk and os.pread(self._descriptor, len(_MAGIC), 0) == _MAGIC

    def is_at_path(self) -> bool:
        """Returns True if the file is still at its path."""
        opened = os.fstat(self._descriptor)
        try:
            at_path = self._path.stat()
        except OSError:
            return False
        return (at_path.st_dev, at_path.st_ino) == (opened.st_dev, opened.st_ino)

    def close(self) -> None:
        """Closes the descriptor."""
        os.close(self._descriptor)


def flush_log(path: Path) -> bool:
    """Waits until the disk has the write-ahead log of a file. Returns True if all of it was copied into the file."""
    with path.with_name(path.name + WAL).open("rb") as log:
        if os.fstat(log.fileno()).st_size <= _LONG_LOG_BYTES:
            os.fdatasync(log.fileno())
            return False
    with contextlib.closing(connect(path)) as file:
        _, pages, copied = file.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return bool(pages == copied)


def check_whole(file: sqlite3.Connection) -> None:
    """Checks that SQLite finds no damage in a file.

    Raises:
        DatabaseError: The file is damaged.
    """
    (found,) = file.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        damage = sqlite3.DatabaseError(found)
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage


def move_aside(path: Path) -> Path | None:
    """Gives a damaged journal another name. Returns its new path; None if there is no such file."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for end in COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).replace(aside.with_name(aside.name + end))
    try:
        return path.replace(aside)
    except FileNotFoundError:
        return None


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Returns True if an error means that the file is not, or no longer, a journal."""
    # The low byte is the primary code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def reason(error: sqlite3.Error | OSError) -> str:
    """Returns the cause of an error in the words of the operating system where it has any."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return os.strerror(errno.ENOSPC) if full else str(error)
