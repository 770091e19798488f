"""Keeps refusals from being given back faster than the gateway's HTTP front can send them.

Triton 24.10 passes each answer to its connection's thread through a socket that holds 278 of them at Linux's usual
size; what finds it full is lost, and its client waits for ever (docs/adr/0007). Workers answer no faster than they
work, but once one has hung, refusals come as fast as the queue can be emptied.
"""

from collections.abc import Callable

AT_ONCE = 64
"""Refusals that need not wait for each other: a batch of the largest kind."""

MOST_PER_S = 4000.0
"""Beyond those; about as fast as two cores empty a queue without a pace."""


class Pace:
    """The refusals of one dispatcher, as seen by one of its instances: a bucket that leaks.

    Args:
        refused: By all instances together so far.
        clock: Seconds.
    """

    def __init__(self, refused: float, clock: Callable[[], float]) -> None:
        self._refused = refused
        self._clock = clock
        self._at_s = clock()
        self._level = 0.0

    def pause_s(self, count: int, refused: float) -> float:
        """How long to wait before a batch with refusals is given back.

        Args:
            count: Of its refusals.
            refused: By all instances together so far, these among them.
        """
        now = self._clock()
        others = refused - self._refused - count
        self._level = max(0.0, self._level + others - MOST_PER_S * (now - self._at_s)) + count
        self._refused, self._at_s = refused, now
        return max(0.0, self._level - AT_ONCE) / MOST_PER_S
