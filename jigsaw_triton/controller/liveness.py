"""Liveness of servers: how long each has not answered."""

from collections.abc import Callable


class Liveness:
    """Tracks how long each server has been unresponsive.

    Args:
        limit_s: Seconds without an answer after which a server counts as hanging.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._since: dict[str, float] = {}

    def is_overdue(self, name: str, *, answered: bool) -> bool:
        """Notes the outcome of a probe. Returns True once the server has been unresponsive for the limit.

        The count starts again after it has returned True.

        Args:
            name: Name of the server.
            answered: True if the server has just answered.
        """
        now = self._clock()
        since = self._since.setdefault(name, now)
        overdue = not answered and now - since >= self._limit_s
        if answered or overdue:
            del self._since[name]
        return overdue
