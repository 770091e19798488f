"""Outcomes of requests, and their sums in each second."""

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Outcome(IntEnum):
    """Outcome of a request."""

    ANSWERED = 0
    REFUSED = 1
    FAILED = 2


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Outcomes of a graph's requests, in the order of their due times.

    Attributes:
        due_s: Due time of each request, in seconds from the start of the load.
        lag_ms: Milliseconds from the due time until the request was sent.
        latency_ms: Milliseconds from sending the request until its answer or its failure.
        outcome: `Outcome` of each request.
    """

    due_s: Array
    lag_ms: Array
    latency_ms: Array
    outcome: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class RequestsBySecond:
    """Requests in each second, by the second in which they were due; arrays of shape [seconds].

    Attributes:
        sent: All requests.
        late: Requests that were answered after the SLO.
        refused: Requests that the gateway refused.
        failed: Requests that failed in another way, or had no answer in time.
    """

    sent: Array
    late: Array
    refused: Array
    failed: Array

    @property
    def violations(self) -> Array:
        """Requests that were late, refused or failed."""
        return self.late + self.refused + self.failed

    def totals(self) -> dict[str, int]:
        """Returns the sums over all seconds, by name."""
        return {field.name: int(getattr(self, field.name).sum()) for field in fields(self)}


def by_second(outcomes: Outcomes, slo_ms: float, seconds: int) -> RequestsBySecond:
    """Counts requests by their outcomes.

    Args:
        outcomes: Outcomes of the requests.
        slo_ms: Latency SLO; a later answer is a violation.
        seconds: Length of the load.
    """

    def count(which: NDArray[np.bool_]) -> Array:
        due = outcomes.due_s[which].astype(np.int64)
        return np.bincount(due, minlength=seconds).astype(np.float64)

    answered = outcomes.outcome == Outcome.ANSWERED
    return RequestsBySecond(
        sent=count(np.ones_like(answered)),
        late=count(answered & (outcomes.latency_ms > slo_ms)),
        refused=count(outcomes.outcome == Outcome.REFUSED),
        failed=count(outcomes.outcome == Outcome.FAILED),
    )
