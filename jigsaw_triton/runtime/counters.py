"""What the instances of a dispatcher count, in a file that all of them map; each has a place in every row for itself.

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

_ROWS = 64
_BYTES = 8 * _ROWS * MOST_INSTANCES


class Row(IntEnum):
    """What is counted.

    TAKEN: Requests taken from the queue.
    LATE: Requests refused because they had waited too long.
    MARK_NUMBER, MARK_TIME: The latest `backlog.Mark` of the instance.
    SENT: Items sent to the first variant of the route by name; the rows after it are for the others.
    """

    TAKEN = 0
    LATE = auto()
    MARK_NUMBER = auto()
    MARK_TIME = auto()
    SENT = 16


class Counters:
    """The counters of one dispatcher.

    Args:
        path: `counters/<dispatcher>` in the run directory; made if missing, folder included.
        instance: Number of the place to write, from 0.
    """

    def __init__(self, path: Path, instance: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size < _BYTES:
                os.ftruncate(descriptor, _BYTES)
            memory = mmap.mmap(descriptor, _BYTES)
        finally:
            os.close(descriptor)
        self.all: Array = np.frombuffer(memory, np.float64).reshape(_ROWS, MOST_INSTANCES)
        """[Row, instance]; a view."""
        self.own: Array = self.all[:, instance % MOST_INSTANCES]
        """[Row]; what this instance writes."""

    def total(self, row: int) -> float:
        """Over all instances."""
        return float(self.all[row].sum())
