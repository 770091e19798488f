"""Reads the gateway's arrivals several times a second while a graph has standby variants, and records the load."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.arrivals import COUNTERS, arrivals, arrived
from jigsaw_triton.controller.core.load_sample import Reading, load_between, read_load
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.persistence.load_history import LoadHistory
from jigsaw_triton.errors import ServerError
from jigsaw_triton.servers.metrics import Sample

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
        return e.Arrived(now_s, seconds, arrivals(before, now)) if before is not None else None


class LoadRecorder:
    """Records the load of each second.

    Args:
        history: History that gets the samples.
    """

    def __init__(self, history: LoadHistory) -> None:
        self._history = history
        self._before: Reading | None = None
        self._before_at_s = 0.0

    def record(self, samples: Sequence[Sample], state: State) -> None:
        """Adds the load since the last call to the history. The first call only reads the counters.

        Args:
            samples: Samples of the gateway's /metrics.
            state: State of the controller.
        """
        now, now_s = read_load(samples), time.monotonic()
        before, self._before = self._before, now
        elapsed_s, self._before_at_s = now_s - self._before_at_s, now_s
        if before is not None and elapsed_s > 0:
            self._history.add(load_between(before, now, elapsed_s, state, time.time()))
