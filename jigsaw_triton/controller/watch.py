"""Reads the gateway's arrivals several times a second while a graph has standby variants, and records the load."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.arrivals import COUNTERS, arrivals, arrived
from jigsaw_triton.controller.core.energy import Joules, Used, joules_per_request
from jigsaw_triton.controller.core.load_sample import Reading, load_between, read_load
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.persistence.load_history import LoadHistory
from jigsaw_triton.errors import ServerError
from jigsaw_triton.servers.metrics import Sample

WATCH_S = 0.1
"""Seconds between two readings. A burst must be seen long before a second has passed."""


ENERGY_S = 11
"""Number of readings of the GPUs' energy, about one a second, over which the energy of a request is a mean."""


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
        energy: Function that reads the energy that each GPU has used.
    """

    def __init__(self, history: LoadHistory, energy: Callable[[], Awaitable[Joules]]) -> None:
        self._history = history
        self._energy = energy
        self._reading: asyncio.Future[Joules] | None = None
        self._used: deque[Used] = deque(maxlen=ENERGY_S)
        self._answered = 0.0
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
            sample = load_between(before, now, elapsed_s, state, time.time())
            self._answered += elapsed_s * sum(graph.served_rps for graph in sample.graphs.values())
            self._history.add(replace(sample, joules_per_request=self._joules_per_request()))

    def _joules_per_request(self) -> float | None:
        """Returns the energy of a request over the last seconds, without waiting for a node that does not answer."""
        if self._reading is None or self._reading.done():
            if self._reading is not None and not self._reading.exception():
                self._used.append(Used(self._reading.result(), self._answered))
            self._reading = asyncio.ensure_future(self._energy())
        return joules_per_request(self._used[0], self._used[-1]) if self._used else None
