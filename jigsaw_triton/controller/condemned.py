"""Workers that the gateway has taken out of service for good.

The compiled backend bars a worker's server process when a call misses its deadline, when a model's process is not
healthy, or when an answer belongs to another call. It writes one file for each, which is read and removed here.
"""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.1
"""Seconds between two looks at the folder."""

_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Condemned:
    """A server process that the gateway uses no more.

    Attributes:
        worker: Name of the worker.
        model: Model whose call showed it.
        reason: Observation, as a sentence.
        inode: Inode of the socket that the process listens on, which tells it from its successors.
    """

    worker: str
    model: str
    reason: str
    inode: int

    def __str__(self) -> str:
        return f"worker {self.worker}, model {self.model}: {self.reason.rstrip('.')}"


@dataclass(frozen=True, slots=True)
class Damaged:
    """A file that tells of no server process.

    Attributes:
        name: Name of the file.
        reason: Mistake in it.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"the gateway's report {self.name} cannot be read: {self.reason}"


def parse(name: str, text: str) -> Condemned | Damaged:
    """Reads the content of a file.

    Args:
        name: Name of the file: `<worker>.json`.
        text: Content.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Damaged(name, f"it is not JSON: {error}")
    match data:
        case {"worker": str(worker), "model": str(model), "reason": str(reason), "inode": int(inode)}:
            if f"{worker}{_SUFFIX}" == name:
                return Condemned(worker, model, reason, inode)
            return Damaged(name, f"it is about worker {worker!r}")
        case _:
            return Damaged(name, "it lacks worker, model, reason or inode")


def take(folder: Path) -> list[Condemned | Damaged]:
    """Reads and removes the files of a folder, which need not exist. Blocks."""
    try:
        # The backend writes a file under another name and then renames it.
        files = sorted(path for path in folder.iterdir() if path.suffix == _SUFFIX and path.is_file())
    except FileNotFoundError:
        return []
    return [_take(path) for path in files]


def _take(path: Path) -> Condemned | Damaged:
    try:
        found = parse(path.name, path.read_text(errors="replace"))
    except OSError as error:
        found = Damaged(path.name, error.strerror or str(error))
    with contextlib.suppress(OSError):
        path.unlink()
    return found


def listens(socket: Path, inode: int) -> bool:
    """Whether a socket is still that of the process that was taken out of service."""
    try:
        return socket.stat().st_ino == inode
    except OSError:
        return False
