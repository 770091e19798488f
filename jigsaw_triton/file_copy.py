"""Copies of large files, which can be interrupted."""

import fcntl
from collections.abc import Callable
from pathlib import Path

_PIECE_BYTES = 4 * 2**20

_FICLONE = 0x40049409
"""Call of Linux that lets a file share the blocks of another one until one of them changes (ioctl_ficlone(2))."""


def clone_file(source: Path, target: Path) -> bool:
    """Makes a copy that shares the blocks of a file. Returns False if the file system cannot do that.

    Raises:
        OSError: The file cannot be read, or the copy cannot be created.
    """
    with source.open("rb") as original, target.open("wb") as copy:
        try:
            fcntl.ioctl(copy, _FICLONE, original.fileno())
        except OSError:
            return False
    return True


def copy_file(source: Path, target: Path, check: Callable[[], None] = lambda: None) -> None:
    """Copies the content of a file. Blocks.

    Args:
        source: The file.
        target: Path of the copy.
        check: Function that is called after each piece. If it raises an error, the copy remains incomplete.

    Raises:
        OSError: The file cannot be read, or the copy cannot be written.
    """
    with source.open("rb", buffering=0) as original, target.open("wb", buffering=0) as copy:
        while piece := original.read(_PIECE_BYTES):
            rest = memoryview(piece)
            while rest:
                rest = rest[copy.write(rest) :]
            check()
