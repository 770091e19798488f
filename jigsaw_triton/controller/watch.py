"""Reads the gateway's arrivals several times a second while a graph has standby variants."""

import asyncio
import time
from collections.abc import Mapping

from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.arrivals import COUNTERS, arrived
from jigsaw_triton.controller.core.counters import counted_since
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.errors import ServerError

WATCH_S = 0.1
"""Seconds between two readings. A burst must be seen long before a second has passed."""


class ArrivalWatch:
    """Counts the arrivals since the last reading.

    Args:
        fleet: Servers of the deployment, with the gateway.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._seen: Mapping[str, float] | None = None
        self._seen_at_s = 0.0

    async def next(self, *, needed: bool) -> e.Arrived | None:
        """Returns the arrivals since the last call, a moment later; None if they are not needed or unknown.

        Args:
            needed: True if a graph has standby variants.
        """
        await asyncio.sleep(WATCH_S)
        server = self._fleet.server(Fleet.GATEWAY)
        if not needed or server is None:
            self._seen = None
            return None
        try:
            now = arrived(await server.client.metrics(COUNTERS))
        except (ServerError, ValueError):
            self._seen = None
            return None
        now_s = time.monotonic()
        before, self._seen = self._seen, now
        seconds, self._seen_at_s = now_s - self._seen_at_s, now_s
        return e.Arrived(now_s, seconds, counted_since(before, now)) if before is not None else None
