"""Epochs of a journal: each process that begins to write it begins another one, which ends that of the process before.

The lock of a deployment normally keeps a second controller from starting. A controller that was suspended may have lost
that lock without its notice: the lock's file was removed, or is on a file system that gives locks up. It checks the
epoch in the journal before each action.
"""

import secrets
import sqlite3

from jigsaw_triton.controller.persistence.lock import AlreadyRunsError

EPOCH_FACT = "epoch"
"""Journal key of the epoch: its number, and random digits that tell it from the same number in another file."""


class SupersededError(AlreadyRunsError):
    """Another process writes the journal now. This one must not act any more."""


def next_epoch(epoch: str) -> str:
    """Returns an epoch that never was before.

    Args:
        epoch: Epoch in the journal; empty if there is none.
    """
    return f"{int(epoch.partition('.')[0] or 0) + 1}.{secrets.token_hex(8)}"


def check_epoch(file: sqlite3.Connection, epoch: str, where: str) -> None:
    """Checks that an epoch of a journal has not ended.

    Args:
        file: Journal.
        epoch: Epoch that it should have; empty if none has begun.
        where: Path of the journal, for the error.

    Raises:
        SupersededError: The journal has another epoch.
    """
    row = file.execute("SELECT value FROM facts WHERE name = ?", (EPOCH_FACT,)).fetchone()
    found = str(row[0]) if row is not None else ""
    if found != epoch:
        raise SupersededError(
            f"another controller has taken over: the journal is in epoch {found}, "
            f"and this controller's epoch, {epoch}, is over",
            where=where,
        )
