"""Epochs of a deployment's controllers: each of them begins another one, which ends that of the one before.

The lock of a deployment normally keeps a second controller from starting. A controller that was suspended may have lost
that lock without its notice: the lock's file was removed, or is on a file system that gives locks up. It checks before
each action that its epoch is not over. Two others know the epoch: the journal has the one that began last, and the
gateway keeps the highest one of the routes that it has read, and refuses routes of an earlier one.
"""

import secrets
import sqlite3
from pathlib import Path

from jigsaw_triton.controller.persistence.lock import AlreadyRunsError

EPOCH_FACT = "epoch"
"""Journal key of the epoch: its number, and random digits that tell it from the same number in another file."""


class SupersededError(AlreadyRunsError):
    """Another controller has taken over. This one must not act any more."""


def number_of(epoch: str) -> int:
    """Returns the number of an epoch; 0 if none has begun."""
    return int(epoch.partition(".")[0] or 0)


def next_epoch(epoch: str, known: int = 0) -> str:
    """Returns an epoch that never was before.

    Args:
        epoch: Epoch in the journal; empty if there is none.
        known: Highest epoch that the gateway knows. The journal may have been lost since.
    """
    return f"{max(number_of(epoch), known) + 1}.{secrets.token_hex(8)}"


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
        raise SupersededError(_over(epoch, f"the journal is in epoch {found}"), where=where)


def gateway_epoch(path: Path) -> int:
    """Returns the highest epoch that the gateway knows; 0 if there is none.

    Args:
        path: File that the gateway keeps it in.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return 0
    return int(text) if text.isdecimal() else 0


def check_gateway(path: Path, epoch: str) -> None:
    """Checks that the gateway knows no later epoch.

    Args:
        path: File that the gateway keeps the highest epoch in.
        epoch: Epoch of this process.

    Raises:
        SupersededError: The gateway knows a later epoch.
    """
    if (found := gateway_epoch(path)) > number_of(epoch):
        raise SupersededError(_over(epoch, f"the gateway has routes of epoch {found}"), where=str(path))


def _over(epoch: str, evidence: str) -> str:
    return f"another controller has taken over: {evidence}, and this controller's epoch, {epoch}, is over"
