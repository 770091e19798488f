"""Liveness of servers: how long each has not answered."""

from collections.abc import Callable
from enum import Enum, auto


class Change(Enum):
    """Change of a server's liveness."""

    STALLED = auto()
    """The server has not answered for some seconds."""

    ANSWERED = auto()
    """The server had stalled, and has answered."""

    OVERDUE = auto()
    """The server has not answered for so long that it hangs."""


class Liveness:
    """Tracks how long each server has been unresponsive.

    Args:
        stalled_s: Seconds without an answer after which a server has stalled.
        overdue_s: Seconds without an answer after which a server hangs.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, stalled_s: float, overdue_s: float, clock: Callable[[], float]) -> None:
        self._stalled_s = stalled_s
        self._overdue_s = overdue_s
        self._clock = clock
        self._since: dict[int, float] = {}
        self._stalled: set[int] = set()

    def probed(self, pid: int, *, answered: bool) -> Change | None:
        """Notes the outcome of a probe, and returns what it changes. The count starts again after `OVERDUE`.

        Args:
            pid: Process id of the server.
            answered: True if the server has just answered.
        """
        stalled = pid in self._stalled
        if answered:
            self._forget(pid)
            return Change.ANSWERED if stalled else None
        unanswered_s = self._clock() - self._since.setdefault(pid, self._clock())
        if unanswered_s >= self._overdue_s:
            self._forget(pid)
            return Change.OVERDUE
        if unanswered_s >= self._stalled_s and not stalled:
            self._stalled.add(pid)
            return Change.STALLED
        return None

    def _forget(self, pid: int) -> None:
        self._since.pop(pid, None)
        self._stalled.discard(pid)
