"""Admission control of a pipeline's requests: which are started, which wait, and which are refused as too late.

A pipeline's process can run only a limited number of steps at once. Without admission control, requests beyond that
limit would wait where no front can see them: a front cannot refuse a request that has not reached its queue.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

MAX_IN_FLIGHT = 32
"""Largest number of items in flight: the number of steps that the Python backend runs for one process at once (its
`thread-pool-size`)."""

RECENT = 256
"""Number of recent requests from whose durations that of the next one is predicted."""

WAIT_SHARE = 0.75
"""Share of the time that the SLO leaves for waiting in which a request may wait; the rest is slack."""

LEAST_WAIT_SHARE = 0.1
"""Share of its time limit for which a request may always wait: a single slow answer is not an overload."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """A waiting request.

    Attributes:
        request: The caller's object for the request.
        items: Number of its items that run through the steps separately.
        limit_s: Timeout of the request in seconds; None for the graph's SLO.
        arrived_s: Time of its arrival, in seconds of the clock.
    """

    request: T
    items: int
    limit_s: float | None
    arrived_s: float


@dataclass(frozen=True, slots=True)
class Turn(Generic[T]):
    """Requests to start and to refuse now.

    Attributes:
        start: Requests that are in flight from now on.
        refuse: Requests that have waited too long, each with the seconds that it waited.
    """

    start: tuple[T, ...]
    refuse: tuple[tuple[T, float], ...]


class Admission(Generic[T]):
    """Admission control of one pipeline process, first in, first out. Not safe for use by several threads.

    Args:
        slo_s: Seconds within which a request without a timeout must be answered; infinity if it may wait.
        clock: Function that returns the current time in seconds.
    """

    def __init__(self, slo_s: float, clock: Callable[[], float]) -> None:
        self._slo_s = slo_s
        self._clock = clock
        self._waiting: deque[Entry[T]] = deque()
        self._in_flight = 0
        self._took_s: deque[float] = deque(maxlen=RECENT)

    def arrived(self, request: T, items: int, limit_s: float | None) -> Turn[T]:
        """Adds a request that has arrived.

        Args:
            request: The caller's object for the request.
            items: Number of its items that run through the steps separately.
            limit_s: Timeout of the request in seconds; None for the graph's SLO.
        """
        now_s = self._clock()
        self._waiting.append(Entry(request, items, limit_s, now_s))
        return self._turn(now_s)

    def ended(self, items: int, took_s: float | None) -> Turn[T]:
        """Removes a request that is no longer in flight.

        Args:
            items: Number of its items.
            took_s: Seconds since it was started; None if it failed, which says nothing about requests that succeed.
        """
        self._in_flight -= items
        if took_s is not None:
            self._took_s.append(took_s)
        return self._turn(self._clock())

    def poll(self) -> Turn[T]:
        """Refuses the requests that have waited too long, if any, when nothing has arrived or ended."""
        return self._turn(self._clock())

    def _turn(self, now_s: float) -> Turn[T]:
        start: list[T] = []
        refuse: list[tuple[T, float]] = []
        slowest_s = max(self._took_s, default=0.0)
        while self._waiting:
            entry = self._waiting[0]
            waited_s = now_s - entry.arrived_s
            if waited_s > self._longest_wait_s(entry.limit_s, slowest_s):
                refuse.append((entry.request, waited_s))
            elif self._in_flight == 0 or self._in_flight + entry.items <= MAX_IN_FLIGHT:
                start.append(entry.request)
                self._in_flight += entry.items
            else:
                break
            self._waiting.popleft()
        return Turn(tuple(start), tuple(refuse))

    def _longest_wait_s(self, limit_s: float | None, slowest_s: float) -> float:
        """Returns the longest time that a request may wait and still be answered in time."""
        whole_s, share = (self._slo_s, WAIT_SHARE) if limit_s is None else (limit_s, 1.0)
        return max(LEAST_WAIT_SHARE * whole_s, share * (whole_s - slowest_s))
