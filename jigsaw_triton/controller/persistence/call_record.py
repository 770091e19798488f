"""Record of the calls that change real GPUs."""

import contextlib

from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.errors import StateError


class CallRecord:
    """Records calls that change real GPUs as actions in the journal. A full disk does not prevent a call.

    Args:
        journal: Journal to write to.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def begin(self, call: str) -> int:
        """Records a call before it is made. Returns the row to pass to `end`."""
        with contextlib.suppress(StateError):
            return self._journal.begin(0, "nvml", call)
        return 0

    def end(self, row: int, error: str) -> None:
        """Records that a call has returned, with its error if it failed."""
        with contextlib.suppress(StateError):
            self._journal.end(row, error)
