"""How long requests have waited in Triton's queue when a dispatcher gets them, from what can be seen there.

Triton tells a python model nothing about when a request came, and its own queue timeouts are of no use here
(docs/adr/0007). What can be known: the queue is first in, first out; a batch that is not full has emptied it; and
Triton's metrics tell how many wait. Each such look is a `Mark`: what is taken after so many more requests came later.
"""

from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

IDLE_S = 0.002
"""An instance that got its next batch later than this after it gave back the last one had been waiting for it."""

SURELY_IDLE_S = 0.5
"""The same for a full batch with more behind it, which a busy machine, or its size, may keep back for a moment."""

ASK_FROM = 0.25
"""Of a task's share of the waiting: from this bound on the queue's length is asked for."""

ASK_EVERY = 0.125
"""Of the same: between two questions."""

OVERLOADED_S = 1.0
"""So long after a refusal the queue counts as overloaded as soon as it is longer than its share."""

TARGET = 0.75
"""Of a task's share of the waiting: what the queue is held to under overload, so that there is time in hand."""


class Mark(NamedTuple):
    """Requests from number `number` on, counted as they are taken from the queue, came after `time_s`."""

    number: float
    time_s: float


class Backlog:
    """The queue of one dispatcher, as seen by one of its instances.

    Args:
        share_s: The task's part of the time that a request may wait in all.
        waiting: Asks Triton how many requests wait; None where it does not say.
        clock: Seconds, the same for all instances.
    """

    def __init__(self, share_s: float, waiting: Callable[[], int | None], clock: Callable[[], float]) -> None:
        self._share_s = share_s
        self._target_s = TARGET * share_s
        self._waiting = waiting
        self._clock = clock
        self._marks: deque[Mark] = deque([Mark(0.0, clock())])
        self._asked_at = -1e9
        self._queued: int | None = None
        self._before, self._now_s, self._waited = 0.0, clock(), False
        self._returned_at = -1e9
        self._refused_at = -1e9
        self._long_since: float | None = None

    def took(self, before: float, count: int, *, full: bool, seen: Mark | None = None) -> Mark | None:
        """A batch was taken from the queue.

        Args:
            before: Requests that all instances together took before it.
            count: Its own.
            full: Whether it is as large as batches get, so that more may wait.
            seen: The latest mark of any instance.

        Returns:
            What others should know; None where nothing is new.
        """
        now = self._clock()
        self._add(seen)
        while len(self._marks) > 1 and self._marks[1].number <= before:
            self._marks.popleft()
        self._before, self._now_s = before, now
        self._waited = True
        pause_s = now - self._returned_at
        if not full:
            self._queued = 0
            self._waited = pause_s <= IDLE_S
            mark: Mark | None = Mark(before + count, now)
        elif pause_s > SURELY_IDLE_S:
            self._waited = False
            mark = Mark(before, now)
        else:
            mark = self._asked(before + count)
            self._waited = pause_s <= IDLE_S or bool(self._queued)
        self._add(mark)
        return mark

    @property
    def bound_s(self) -> float:
        """No request of the batch taken last can have waited longer than this."""
        return self._now_s - self._marks[0].time_s if self._waited else 0.0

    def waited_s(self, index: int) -> float:
        """About how long a request of the batch taken last waited; the bound where nothing nearer is known.

        Args:
            index: Its place in the batch; requests are taken to have come evenly between two marks.
        """
        if not self._waited:
            return 0.0
        number = self._before + index
        came_s = self._marks[0].time_s
        for mark, later in pairwise(self._marks):
            if later.number <= number:
                came_s = later.time_s
                continue
            if mark.number <= number:
                part = (number - mark.number) / (later.number - mark.number)
                came_s = mark.time_s + part * (later.time_s - mark.time_s)
            break
        return max(0.0, self._now_s - came_s)

    def is_overloaded(self, waited_s: float) -> bool:
        """Whether to refuse the batch taken last.

        A queue that is long once in a while is none: it has to stay so for some time before anything is refused, and
        is held to its target from then on (the idea is CoDel's: Nichols and Jacobson, Controlling Queue Delay, 2012).

        Args:
            waited_s: By the last request of the batch, which waited least.
        """
        now = self._now_s
        if waited_s <= self._target_s:
            self._long_since = None
            return False
        if self._long_since is None:
            self._long_since = now
        return now - self._refused_at < OVERLOADED_S or now - self._long_since >= self._target_s

    def refused(self) -> None:
        """A batch was refused because the queue is overloaded."""
        self._refused_at = self._now_s

    def returned(self) -> None:
        """The batch is done; from now on the instance waits for the next."""
        self._returned_at = self._clock()

    def _asked(self, taken: float) -> Mark | None:
        """What Triton says of the queue behind a full batch, where it is time to ask."""
        now = self._now_s
        old_s = now - self._marks[0].time_s
        if old_s <= ASK_FROM * self._share_s or now - self._asked_at <= ASK_EVERY * self._share_s:
            return None
        self._asked_at = now
        self._queued = self._waiting()
        return Mark(taken + self._queued, now) if self._queued is not None else None

    def _add(self, mark: Mark | None) -> None:
        if mark is None or mark.time_s <= self._marks[-1].time_s:
            return
        # A later mark with no greater number says all that the earlier one does, and more.
        while self._marks and self._marks[-1].number >= mark.number:
            self._marks.pop()
        self._marks.append(mark)
