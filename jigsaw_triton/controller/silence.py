"""Servers that do not answer, and for how long."""

from collections.abc import Callable


class Silence:
    """Since when who has not been heard.

    Args:
        limit_s: From when on it is too long.
        clock: Seconds.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._since: dict[str, float] = {}

    def lasts(self, name: str, *, heard: bool) -> bool:
        """Whether it has been too long; the count begins anew when that was told once.

        Args:
            name: Of whom.
            heard: Whether it has answered just now.
        """
        now = self._clock()
        since = self._since.setdefault(name, now)
        too_long = not heard and now - since >= self._limit_s
        if heard or too_long:
            del self._since[name]
        return too_long
