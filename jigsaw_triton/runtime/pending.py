"""Asks the gateway's own metrics how many requests wait for a model."""

import http.client
import math
import time
from collections.abc import Callable
from contextlib import suppress

_TIMEOUT_S = 0.2

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
"""Without a question after one that got no answer, which may have cost its whole timeout; doubling from the first."""


class Pending:
    """The metric `nv_inference_pending_request_count` of one model, over a kept connection.

    Args:
        address: `host:port` of the metrics.
        model: Name.
        clock: Seconds.
    """

    def __init__(self, address: str, model: str, clock: Callable[[], float] = time.monotonic) -> None:
        host, _, port = address.rpartition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_S)
        self._line = f'nv_inference_pending_request_count{{model="{model}",'.encode()
        self._clock = clock
        self._silent_until = -math.inf
        self._pause_s = FIRST_PAUSE_S

    def __call__(self) -> int | None:
        """How many wait, without those that an instance works on; None where there is no answer or just was none."""
        if self._clock() < self._silent_until:
            return None
        waiting = self._ask()
        if waiting is not None:
            self._pause_s = FIRST_PAUSE_S
        else:
            self._silent_until = self._clock() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        return waiting

    def close(self) -> None:
        """Closes the connection: a server with open ones is slow to stop."""
        self._connection.close()

    def _ask(self) -> int | None:
        with suppress(OSError, http.client.HTTPException, ValueError, IndexError):
            self._connection.request("GET", "/metrics")
            text = self._connection.getresponse().read()
            return int(text.split(self._line, 1)[1].split(b"}", 1)[1].split(b"\n", 1)[0])
        self._connection.close()
        return None
