"""Worker slots: how many batches a model on a worker has under way, counted across the processes of all dispatchers.

A slot is a locked byte of the file `slots/<worker>/<model>` in the run directory. The kernel unlocks it when its
process dies. POSIX drops a process's locks on a file as soon as it closes any descriptor of it, so each file is opened
once and kept; nobody may unlink a file that a route names.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jigsaw_triton.runtime.route import RouteEntry

DRAIN_INTERVAL_S = 0.005


class SlotFile:
    """The slots of one model on one worker, as this process sees them.

    Args:
        path: Created if missing, folder included.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # The kernel lets a process lock again what it has locked itself.
        self._held: set[int] = set()

    def take(self, slot: int) -> bool:
        """Takes a slot if it is free."""
        if slot in self._held:
            return False
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
        except (BlockingIOError, PermissionError):
            return False
        self._held.add(slot)
        return True

    def release(self, slot: int) -> None:
        """Frees a slot taken before."""
        self._held.remove(slot)
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, slot)

    def close(self) -> None:
        """Closes the file; what was held is free then."""
        os.close(self._descriptor)


class Lease:
    """A slot taken, shared by the calls that make up one batch; the last to release it frees the slot."""

    def __init__(self, entry: RouteEntry, file: SlotFile, slot: int) -> None:
        self.entry = entry
        self._file = file
        self._slot = slot
        self._holders = 1

    def hold(self) -> None:
        """One more holder."""
        self._holders += 1

    def release(self) -> None:
        """One holder less."""
        self._holders -= 1
        if self._holders == 0:
            self._file.release(self._slot)


class SlotPool:
    """The slots of all models on a dispatcher's route.

    Args:
        folder: `slots` in the run directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[tuple[str, str], SlotFile] = {}
        self._turn = os.getpid()

    def take(self, entries: Sequence[RouteEntry]) -> Lease | None:
        """Takes a slot of the entry that has least under way, by turns among equals; None when all are taken."""
        self._turn += 1
        turn = self._turn % max(1, len(entries))
        candidates = [*entries[turn:], *entries[:turn]]
        for slot in range(max((entry.slots for entry in candidates), default=0)):
            for entry in candidates:
                if slot < entry.slots and (file := self._file(entry)).take(slot):
                    return Lease(entry, file, slot)
        return None

    def retain(self, entries: Sequence[RouteEntry]) -> None:
        """Closes the files that these entries do not name; none of their slots may be held."""
        named = {(entry.worker, entry.model) for entry in entries}
        for key in self._files.keys() - named:
            self._files.pop(key).close()

    def close(self) -> None:
        """Closes all files."""
        self.retain(())

    def _file(self, entry: RouteEntry) -> SlotFile:
        key = (entry.worker, entry.model)
        file = self._files.get(key)
        if file is None:
            file = self._files[key] = SlotFile(self._folder / entry.worker / entry.model)
        return file


@contextmanager
def drain(
    path: Path,
    slots: int,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[bool]:
    """Takes all slots of a model on a worker, as they become free, and holds them inside the `with` block.

    Take the model off the routes first. Blocks: call it in a thread from asyncio code, and once a file at a time.

    Args:
        path: `slots/<worker>/<model>` in the run directory.
        slots: How many to take: the most that any route in use has granted.
        timeout_s: How long to wait for those that are taken.
        clock: Seconds.
        sleep: For seconds.

    Yields:
        Whether all were taken, so that nothing of it is under way.
    """
    file = SlotFile(path)
    try:
        give_up_at = clock() + timeout_s
        missing = [slot for slot in range(slots) if not file.take(slot)]
        while missing and clock() < give_up_at:
            sleep(DRAIN_INTERVAL_S)
            missing = [slot for slot in missing if not file.take(slot)]
        yield not missing
    finally:
        file.close()
