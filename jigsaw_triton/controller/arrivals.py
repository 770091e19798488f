"""Requests that have arrived, from a server's counters. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counters:
    """Of one graph at the gateway.

    Attributes:
        ended: Requests answered or refused since the model was loaded: restarts at 0 when it is loaded anew.
        pending: Requests that have come in and wait or are being worked on.
    """

    ended: float
    pending: float


def arrivals(before: Counters | None, now: Counters) -> float:
    """Requests that came in between two readings; at least 0.

    A counter that went down was reset in between: what it counts now has come in since.
    """
    if before is None:
        return 0.0
    ended = now.ended - before.ended if now.ended >= before.ended else now.ended
    return max(0.0, ended + now.pending - before.pending)
