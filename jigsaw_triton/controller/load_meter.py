"""Measures the load by the gateway's counters, and records it."""

import time
from collections.abc import Sequence
from dataclasses import replace

from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.load_sample import Reading, load_between, read_load
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.gateway_counters import NOTHING, GatewayCounters, Measured
from jigsaw_triton.controller.persistence.load_history import LoadHistory
from jigsaw_triton.errors import ServerError
from jigsaw_triton.servers.metrics import Sample


class LoadMeter:
    """Measures the load since the last measurement, and adds it to the history.

    Args:
        fleet: Servers of the deployment, with the gateway.
        history: History that gets the measurements.
        adopted: True if an earlier controller started the gateway.

    Attributes:
        last: Last measurement.
    """

    def __init__(self, fleet: Fleet, history: LoadHistory, *, adopted: bool) -> None:
        self._fleet = fleet
        self._counters = GatewayCounters(time.monotonic(), adopted=adopted)
        self._recorder = LoadRecorder(history)
        self.last = NOTHING

    @property
    def served(self) -> float:
        """Number of requests that were answered since the first measurement."""
        return self._recorder.served

    async def tick(self, state: State, joules_per_request: float | None) -> e.Tick:
        """Measures the load.

        Args:
            state: State of the controller.
            joules_per_request: Energy for each request that was answered recently; None if it is unknown.
        """
        self.last = found = await self._measured(state, joules_per_request)
        now_s = time.monotonic()
        return e.Tick(now_s, found.rates_rps, found.counts, found.requests, found.times, time.time() - now_s)

    async def _measured(self, state: State, joules_per_request: float | None) -> Measured:
        """Returns what the gateway has counted since the last measurement."""
        server = self._fleet.server(Fleet.GATEWAY)
        if server is None or state.running is None:
            return NOTHING
        try:
            samples = await server.client.metrics()
        except (ServerError, ValueError):
            return NOTHING
        self._recorder.record(samples, state, joules_per_request)
        return self._counters.measured(samples, time.monotonic(), state.running.wanted.graphs, state.watch)


class LoadRecorder:
    """Records the load of each second.

    Args:
        history: History that gets the samples.

    Attributes:
        served: Number of requests that were answered since the first call of `record`.
    """

    def __init__(self, history: LoadHistory) -> None:
        self._history = history
        self.served = 0.0
        self._before: Reading | None = None
        self._before_at_s = 0.0

    def record(self, samples: Sequence[Sample], state: State, joules_per_request: float | None = None) -> None:
        """Adds the load since the last call to the history. The first call only reads the counters.

        Args:
            samples: Samples of the gateway's /metrics.
            state: State of the controller.
            joules_per_request: Energy for each request that was answered recently; None if it is unknown.
        """
        now, now_s = read_load(samples), time.monotonic()
        before, self._before = self._before, now
        elapsed_s, self._before_at_s = now_s - self._before_at_s, now_s
        if before is not None and elapsed_s > 0:
            load = load_between(before, now, elapsed_s, state, time.time())
            self.served += elapsed_s * sum(graph.served_rps for graph in load.graphs.values())
            self._history.add(replace(load, joules_per_request=joules_per_request))
