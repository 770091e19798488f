"""What the instances of a dispatcher count, in a file that all of them map; each has a part of it for itself.

No lock: a counter is one aligned 8-byte float with one writer, and whoever wants the total adds up a row. The file
outlives the processes, so that counts go on where a killed instance left off.
"""

import mmap
import os
from enum import IntEnum, auto
from pathlib import Path

import numpy as np

from jigsaw_triton.runtime.dtypes import Array

MOST_INSTANCES = 64
"""Of a dispatcher."""

MOST_VARIANTS = 16
"""Of a task on one route."""

_PARTS = MOST_INSTANCES + 1


class Row(IntEnum):
    """What is counted.

    TAKEN: Requests taken from the queue.
    LATE: Requests refused because they had waited too long.
    MARK_NUMBER, MARK_TIME: The latest `backlog.Mark` of the instance.
    FAILED_REQUEST, FAILED_MODEL, FAILED_WORKER: Requests that failed, by `batches.Blame`; late ones are not among them.
    AGAIN: Batches sent that had been sent before, in part or whole.
    LOST: Batches on which a worker failed.
    SENT_BYTES, RECEIVED_BYTES: Bodies of requests to workers and of their answers.
    CHECKED, HELD: Requests whose condition was looked at, and those of them for which the task runs.
    SENT: Items sent to the first variant of the route by name; the rows after it are for the others.
    """

    TAKEN = 0
    LATE = auto()
    MARK_NUMBER = auto()
    MARK_TIME = auto()
    FAILED_REQUEST = auto()
    FAILED_MODEL = auto()
    FAILED_WORKER = auto()
    AGAIN = auto()
    LOST = auto()
    SENT_BYTES = auto()
    RECEIVED_BYTES = auto()
    CHECKED = auto()
    HELD = auto()
    SENT = 16


FREE_ROWS = Row.SENT + MOST_VARIANTS
"""Rows from this one on are laid out by `tally`."""


class Counters:
    """The counters of one dispatcher.

    Args:
        path: `counters/<dispatcher>` in the run directory; made if missing, folder included.
        instance: Number of the place to write, from 0.
        rows: In all; the same for all instances.
    """

    def __init__(self, path: Path, instance: int, rows: int = FREE_ROWS) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        size = 8 * rows * _PARTS
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size < size:
                os.ftruncate(descriptor, size)
            memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        parts = np.frombuffer(memory, np.float64).reshape(_PARTS, rows)
        self.all: Array = parts[:MOST_INSTANCES].T
        """[row, instance]; a view."""
        start = instance % MOST_INSTANCES * rows
        self.own = memoryview(memory).cast("d")[start : start + rows]
        """[row]; what this instance writes. A fifth of the price of an array of numpy's."""
        self.published: Array = parts[MOST_INSTANCES]
        """[row]; the part of the totals that is in Triton's metrics. Its one writer is `metrics`."""

    def total(self, row: int) -> float:
        """Over all instances."""
        return float(self.all[row].sum())
