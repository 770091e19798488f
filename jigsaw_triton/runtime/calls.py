"""Calls of the user's code that are under way, and those that have gone on for so long that they count as hanging."""

from collections.abc import Callable
from itertools import count
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Calls(Generic[T]):
    """From any thread.

    Args:
        limit_s: After which a call counts as hanging.
        clock: Seconds.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._numbers = count()
        self._lock = Lock()
        self._under_way: dict[int, tuple[float, T]] = {}
        self._hanging: set[int] = set()

    def begun(self, what: T) -> int:
        """A call begins; its number."""
        with self._lock:
            number = next(self._numbers)
            self._under_way[number] = self._clock(), what
        return number

    def ended(self, number: int) -> bool:
        """A call has returned; False where it counted as hanging."""
        with self._lock:
            self._hanging.discard(number)
            return self._under_way.pop(number, None) is not None

    def overdue(self) -> tuple[T, ...]:
        """Those that count as hanging from now on; each is told once."""
        with self._lock:
            before_s = self._clock() - self._limit_s
            found = {number: what for number, (began_s, what) in self._under_way.items() if began_s < before_s}
            for number in found:
                del self._under_way[number]
            self._hanging.update(found)
        return tuple(found.values())

    @property
    def hanging(self) -> int:
        """How many hang now."""
        return len(self._hanging)
