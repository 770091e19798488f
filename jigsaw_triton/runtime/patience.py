"""How long a batch may wait for workers that are out or hang, while memory fills with the requests behind it.

Where little waits, a batch waits for as long as its worker may need to start again. But what waits lies in memory, and
nothing leaves the queue before an instance takes it, to serve it or to refuse it as late.
"""

import math
from collections.abc import Callable

from jigsaw_triton.runtime.batches import Batch

MOST_BYTES = 256 * 2**20
"""Of requests that may wait behind a batch that is late itself."""

ASK_EVERY_S = 1.0


class Patience:
    """For one instance of a dispatcher.

    Args:
        slack_s: A batch that was not sent for this long is late.
        slo_s: The same for one that was sent.
        waiting: Asks Triton how many requests wait; None where it does not say.
        clock: Seconds.
    """

    def __init__(
        self, slack_s: float, slo_s: float, waiting: Callable[[], int | None], clock: Callable[[], float]
    ) -> None:
        self._slack_s = slack_s
        self._slo_s = slo_s
        self._waiting = waiting
        self._clock = clock
        self._began_s = clock()
        self._asked_s = -math.inf

    def begin(self) -> None:
        """A batch was taken."""
        self._began_s = self._clock()

    def left_s(self, *, under_way: bool) -> float:
        """For how long the batch may wait before there is anything to ask; negative once that is over.

        Args:
            under_way: Whether some of it is at a worker.
        """
        late_at = self._began_s + (self._slo_s if under_way else self._slack_s)
        return max(late_at, self._asked_s + ASK_EVERY_S) - self._clock()

    def spent(self, batch: Batch, *, under_way: bool) -> str | None:
        """Why the batch is to be given up; None where it may wait on.

        Args:
            batch: What waits behind it is taken to be of requests as large as its own.
            under_way: Whether some of it is at a worker.
        """
        if self.left_s(under_way=under_way) > 0:
            return None
        self._asked_s = self._clock()
        size = (self._waiting() or 0) * batch.bytes_per_request()
        if size <= MOST_BYTES:
            return None
        waited_s = self._asked_s - self._began_s
        return f"no worker did it within {waited_s:.1f} s, and requests of about {size / 2**20:.0f} MiB wait behind it"
