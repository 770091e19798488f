"""Records of traced batches that the workers of this machine write, for the controller that asks for them."""

import time
from pathlib import Path

from jigsaw_triton.servers.line_tail import Tail

PAUSE_S = 30.0
"""Seconds without a question after which the records written meanwhile are skipped: nobody waits for them."""


class RunRecords:
    """Reads the records that have been written since the last question.

    Args:
        folder: Folder with a folder for each worker, in which each model instance has a file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tail: Tail | None = None
        self._asked_s = 0.0

    def read(self) -> list[str]:
        """Returns the new lines. The first question gets none: reading begins with it."""
        now_s = time.monotonic()
        if self._tail is None or now_s - self._asked_s > PAUSE_S:
            self._tail = Tail(self._folder, "*/*.jsonl")
        self._asked_s = now_s
        return list(self._tail.read())
