"""Asks the gateway's own metrics how many requests wait for a model."""

import http.client
from contextlib import suppress

_TIMEOUT_S = 0.2


class Pending:
    """The metric `nv_inference_pending_request_count` of one model, over a kept connection.

    Args:
        address: `host:port` of the metrics.
        model: Name.
    """

    def __init__(self, address: str, model: str) -> None:
        host, _, port = address.rpartition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_S)
        self._line = f'nv_inference_pending_request_count{{model="{model}",'.encode()

    def __call__(self) -> int | None:
        """How many wait, without those that an instance works on; None where there is no answer."""
        with suppress(OSError, http.client.HTTPException, ValueError, IndexError):
            self._connection.request("GET", "/metrics")
            text = self._connection.getresponse().read()
            return int(text.split(self._line, 1)[1].split(b"}", 1)[1].split(b"\n", 1)[0])
        self._connection.close()
        return None

    def close(self) -> None:
        """Closes the connection: a server with open ones is slow to stop."""
        self._connection.close()
