"""Reports of workers that the gateway has permanently taken out of service.

The compiled backend stops using a worker's server process when a call misses its deadline, when a model's process is
unhealthy, or when an answer belongs to another call. It writes one file for each such worker. This module reads and
removes the files.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.1
"""Seconds between two checks of the folder."""

_RESTORED_S = 5.0
"""Seconds for which a report waits for a socket that was removed. A listener makes its socket again within a second, or
somewhat more on a busy machine."""

_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Condemned:
    """A server process that the gateway no longer uses.

    Attributes:
        worker: Name of the worker.
        model: Model whose call revealed the fault.
        reason: Fault that the gateway observed, as a sentence.
        identity: Modification time of the socket that the process listens on, in nanoseconds. It distinguishes the
            process from its successors.
    """

    worker: str
    model: str
    reason: str
    identity: int

    def __str__(self) -> str:
        return f"worker {self.worker}, model {self.model}: {self.reason.rstrip('.')}"


@dataclass(frozen=True, slots=True)
class Damaged:
    """A report that cannot be read.

    Attributes:
        name: Name of the file.
        reason: Fault in the file.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"ignored the gateway's report {self.name}, which cannot be read: {self.reason}"


def parse(name: str, text: str) -> Condemned | Damaged:
    """Parses a report.

    Args:
        name: Name of the file, `<worker>.json`.
        text: Content of the file.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Damaged(name, f"it is not JSON: {error}")
    match data:
        case {"worker": str(worker), "model": str(model), "reason": str(reason), "identity": int(identity)}:
            if f"{worker}{_SUFFIX}" == name:
                return Condemned(worker, model, reason, identity)
            return Damaged(name, f"it names another worker, {worker!r}")
        case _:
            return Damaged(name, "it lacks worker, model, reason or identity")


def has_files(folder: Path) -> bool:
    """Returns True if a folder has files. It is quick enough for an event loop."""
    try:
        with os.scandir(folder) as files:
            return next(files, None) is not None
    except OSError:
        return False


def take(folder: Path, socket_of: Callable[[str], Path]) -> list[Condemned | Damaged]:
    """Reads and removes the reports in a folder, which need not exist. Blocks.

    A recent report about a worker without a socket stays: if only the file of the socket was removed, the worker makes
    it again.

    Args:
        folder: Folder of the reports.
        socket_of: Function that returns the path of a worker's socket, given the worker's name.
    """
    try:
        # The backend writes a file under another name and then renames it.
        files = sorted(path for path in folder.iterdir() if path.suffix == _SUFFIX and path.is_file())
    except FileNotFoundError:
        return []
    return [_take(path) for path in files if not _waits(path, socket_of(path.stem))]


def _waits(report: Path, socket: Path) -> bool:
    try:
        return not socket.exists() and time.time() - report.stat().st_mtime < _RESTORED_S
    except OSError:
        return False


def _take(path: Path) -> Condemned | Damaged:
    try:
        found = parse(path.name, path.read_text(errors="replace"))
    except OSError as error:
        found = Damaged(path.name, error.strerror or str(error))
    with contextlib.suppress(OSError):
        path.unlink()
    return found


def listens(socket: Path, identity: int) -> bool:
    """Returns True if the socket still belongs to the process that was taken out of service."""
    try:
        return socket.stat().st_mtime_ns == identity
    except OSError:
        return False
