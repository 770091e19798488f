"""Follows the trace files, which are renamed to `<name>.1` when they are full."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_HEAD_BYTES = 256


class _Place(NamedTuple):
    """Place in a file. The head distinguishes the file from a later one, which may get its inode."""

    inode: int
    offset: int
    head: bytes


class Tail:
    """Reads the lines that are appended to the files of a folder from now on.

    Args:
        folder: Folder, which may not exist yet.
        pattern: Pattern of the files.

    Attributes:
        gaps: Times that a file was renamed twice between two readings, so that lines were lost.
    """

    def __init__(self, folder: Path, pattern: str) -> None:
        self.gaps = 0
        self._folder = folder
        self._pattern = pattern
        self._places: dict[Path, _Place] = {}
        for path in self._paths():
            with suppress(OSError):
                _, self._places[path] = _lines(path, None)

    def read(self) -> Iterator[str]:
        """Yields the complete lines that are new. A file that has appeared is read from its start."""
        paths = self._paths()
        for path in self._places.keys() - paths:
            # The file was renamed, or removed with its worker.
            yield from self._rest(path, self._places.pop(path)) or ()
        for path in sorted(paths):
            yield from self._read(path)

    def _paths(self) -> frozenset[Path]:
        with suppress(OSError):
            return frozenset(self._folder.glob(self._pattern))
        return frozenset()

    def _read(self, path: Path) -> Iterator[str]:
        place = self._places.get(path)
        with suppress(OSError):
            status = path.stat()
            if place is not None and (place.inode, place.offset) == (status.st_ino, status.st_size):
                return
            lines, after = _lines(path, place)
            if lines is None and place is not None:
                # The file that was read last was renamed, and another one has its name.
                rest = self._rest(path, place)
                self.gaps += rest is None
                yield from rest or ()
                lines, after = _lines(path, None)
            self._places[path] = after
            yield from lines or ()

    def _rest(self, path: Path, place: _Place) -> list[str] | None:
        """Returns the lines of a renamed file that are left; None if it is gone."""
        with suppress(OSError):
            return _lines(path.with_name(f"{path.name}.1"), place)[0]
        return None


def _lines(path: Path, place: _Place | None) -> tuple[list[str] | None, _Place]:
    """Returns the complete lines of a file after a place, and the place after them.

    Args:
        path: Path of the file.
        place: Place up to which it was read; None to read it from its start.

    Returns:
        None in place of the lines if this is not the file of the place.

    Raises:
        OSError: There is no such file, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            inode, head = os.fstat(file.fileno()).st_ino, file.read(_HEAD_BYTES)
            if place is not None and not (inode == place.inode and head.startswith(place.head)):
                return None, place
            start = file.seek(place.offset if place is not None else 0)
            data = file.read()
    except FileNotFoundError:
        if place is not None:
            return None, place
        raise
    end = data.rfind(b"\n") + 1
    # Messages may contain other separators of lines.
    return data[:end].decode("utf-8", "replace").split("\n")[:-1], _Place(inode, start + end, head)
