"""Admission of a pipeline's requests: which are under way, which wait, and which come too late for an answer.

A pipeline's process has a limited number of steps under way at once. What would wait for a free one would do so where
nobody sees it: a front knows nothing of a request that has not come to its queue, and cannot refuse it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

MOST_UNDER_WAY = 32
"""Items of requests; as many steps as the python backend runs for one process at once (its `thread-pool-size`)."""

RECENT = 256
"""Requests whose time under way tells how long the next one will take."""

TARGET = 0.75
"""Of the time that the SLO leaves for waiting: what is used of it, so that there is time in hand."""

LEAST = 0.1
"""Of its limit that a request may wait whatever those before it took: one slow answer is no overload."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """A request.

    Attributes:
        what: Whatever the caller knows it by.
        items: That go their own ways through the steps.
        limit_s: The timeout that it brings; None for the graph's SLO.
        came_s: When.
    """

    what: T
    items: int
    limit_s: float | None
    came_s: float


@dataclass(frozen=True, slots=True)
class Turn(Generic[T]):
    """What is to be done now.

    Attributes:
        start: Are under way from now on.
        refuse: Have waited too long, each with its seconds.
    """

    start: tuple[T, ...]
    refuse: tuple[tuple[T, float], ...]


class Admission(Generic[T]):
    """The requests of one pipeline's process: first in, first out. Not for several threads at once.

    Args:
        slo_s: Seconds within which a request without a timeout of its own is to be answered; infinity if it may wait.
        clock: Seconds.
    """

    def __init__(self, slo_s: float, clock: Callable[[], float]) -> None:
        self._slo_s = slo_s
        self._clock = clock
        self._waiting: deque[Entry[T]] = deque()
        self._under_way = 0
        self._took_s: deque[float] = deque(maxlen=RECENT)

    def came(self, what: T, items: int, limit_s: float | None) -> Turn[T]:
        """A request came."""
        now_s = self._clock()
        self._waiting.append(Entry(what, items, limit_s, now_s))
        return self._turn(now_s)

    def ended(self, items: int, took_s: float | None) -> Turn[T]:
        """A request is no longer under way.

        Args:
            items: Of it.
            took_s: Since it was started; None where it failed, which tells nothing of those that do not.
        """
        self._under_way -= items
        if took_s is not None:
            self._took_s.append(took_s)
        return self._turn(self._clock())

    def look(self) -> Turn[T]:
        """Nothing happened but that time went by."""
        return self._turn(self._clock())

    def _turn(self, now_s: float) -> Turn[T]:
        start: list[T] = []
        refuse: list[tuple[T, float]] = []
        slowest_s = max(self._took_s, default=0.0)
        while self._waiting:
            entry = self._waiting[0]
            waited_s = now_s - entry.came_s
            if waited_s > self._patience_s(entry.limit_s, slowest_s):
                refuse.append((entry.what, waited_s))
            elif self._under_way == 0 or self._under_way + entry.items <= MOST_UNDER_WAY:
                start.append(entry.what)
                self._under_way += entry.items
            else:
                break
            self._waiting.popleft()
        return Turn(tuple(start), tuple(refuse))

    def _patience_s(self, limit_s: float | None, slowest_s: float) -> float:
        """How long a request may wait that is to be answered in time."""
        whole_s, part = (self._slo_s, TARGET) if limit_s is None else (limit_s, 1.0)
        return max(LEAST * whole_s, part * (whole_s - slowest_s))
