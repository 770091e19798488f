"""Keeps the weights of a front's cells at what the cells report that they carry."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from jigsaw_triton.front.config import STANDBY, backend
from jigsaw_triton.front.haproxy_stats import Servers
from jigsaw_triton.front.model import Front, FrontCell
from jigsaw_triton.front.runtime_api import RuntimeApi
from jigsaw_triton.front.shares import shares, weights
from jigsaw_triton.servers.edge.config import PROTOCOLS
from jigsaw_triton.servers.metrics import Sample, parse_metrics

INTERVAL_S = 1.0
"""Seconds between two looks at the cells."""

_ANSWER_S = 2.0
_CAPACITY, _ARRIVALS = "jigsaw_capacity_rps", "jigsaw_arrivals_total"

_WINDOW = 10
"""Looks over which the load is averaged: a peak of a second moves no weight."""


@dataclass(frozen=True, slots=True)
class Report:
    """Report of a cell's gateway.

    Attributes:
        at_s: Second at which it was read.
        capacity_rps: Graph -> requests per second that the cell carries.
        arrivals: Graph -> requests that have arrived since the gateway started.
    """

    at_s: float
    capacity_rps: Mapping[str, float]
    arrivals: Mapping[str, float]


@dataclass(slots=True)
class Load:
    """Recent reports of a cell.

    Attributes:
        reports: Reports, the latest last.
    """

    reports: deque[Report] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    def add(self, report: Report | None) -> None:
        """Adds a report; None if the gateway did not answer, whose earlier reports then say nothing any more."""
        if report is None:
            self.reports.clear()
        else:
            self.reports.append(report)

    def rate_rps(self, graph: str) -> float | None:
        """Returns the requests per second to a graph; None if two reports are not there yet."""
        if len(self.reports) < 2:
            return None
        first, last = self.reports[0], self.reports[-1]
        gained = last.arrivals.get(graph, 0.0) - first.arrivals.get(graph, 0.0)
        # The counter of a gateway that has restarted begins at 0.
        return max(0.0, gained) / max(last.at_s - first.at_s, 1e-3)


def parse_report(samples: Sequence[Sample], at_s: float) -> Report:
    """Returns the report in a gateway's metrics."""
    found: dict[str, dict[str, float]] = {_CAPACITY: {}, _ARRIVALS: {}}
    for sample in samples:
        if sample.name in found and "graph" in sample.labels:
            found[sample.name][sample.labels["graph"]] = sample.value
    return Report(at_s, found[_CAPACITY], found[_ARRIVALS])


def wanted_weights(front: Front, loads: Mapping[str, Load], servers: Servers) -> dict[tuple[str, str], int]:
    """Returns the weight that each server should have.

    Args:
        front: Settings of the front.
        loads: Cell -> its recent reports.
        servers: HAProxy's view of the servers.

    Returns:
        (backend, server) -> weight, for the servers of graphs that HAProxy has.
    """
    found: dict[tuple[str, str], int] = {}
    for graph in front.graphs:
        cells = front.cells_of(graph)
        rates = {cell.name: loads[cell.name].rate_rps(graph) for cell in cells if cell.name in loads}
        capacity_rps = {
            name: loads[name].reports[-1].capacity_rps[graph]
            for name, rate in rates.items()
            if rate is not None and graph in loads[name].reports[-1].capacity_rps
        }
        load_rps = sum(rates[name] or 0.0 for name in capacity_rps)
        planned = {cell.name: cell.shares[graph] for cell in cells}
        by_cell = weights(shares(planned, capacity_rps, load_rps))
        checked = backend("http", graph)
        for cell in cells:
            for name, weight in _of_cell(cell, by_cell[cell.name], checked, servers):
                found |= {(backend(protocol, graph), name): weight for protocol in PROTOCOLS}
    return {place: weight for place, weight in found.items() if place in servers}


def _of_cell(cell: FrontCell, weight: int, checked: str, servers: Servers) -> list[tuple[str, int]]:
    """Returns the weights of a cell's gateway and standby gateway. Only one of them has a weight above 0."""
    if cell.standby is None:
        return [(cell.name, weight)]
    standby = cell.name + STANDBY
    main, other = servers.get((checked, cell.name)), servers.get((checked, standby))
    replaced = main is not None and other is not None and not main.up and other.up
    # The weight of a gateway that is down stays, so that it gets requests as soon as it is back.
    return [(cell.name, weight), (standby, weight if replaced else 0)]


class Balancer:
    """Reads what cells report, and sets HAProxy's weights.

    Args:
        api: HAProxy's runtime API.
    """

    def __init__(self, api: RuntimeApi) -> None:
        self._api = api
        self._loads: dict[str, Load] = {}

    async def look(self, front: Front, session: aiohttp.ClientSession) -> None:
        """Reads the metrics of all cells once, and changes the weights that differ from the wanted ones."""
        reports = await asyncio.gather(*(self._read(cell, session) for cell in front.cells))
        loads = {cell.name: self._loads.get(cell.name, Load()) for cell in front.cells}
        for cell, report in zip(front.cells, reports, strict=True):
            loads[cell.name].add(report)
        self._loads = loads
        servers = await self._api.servers()
        if servers is None:
            return
        wanted = wanted_weights(front, loads, servers)
        await self._api.set_weights({place: w for place, w in wanted.items() if servers[place].weight != w})

    @staticmethod
    async def _read(cell: FrontCell, session: aiohttp.ClientSession) -> Report | None:
        """Returns the report of a cell; None if neither its gateway nor its standby gateway answers."""
        for gateway in (cell.gateway, cell.standby):
            if gateway is None or gateway.metrics is None:
                continue
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
                timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
                async with session.get(f"http://{gateway.metrics}/metrics", timeout=timeout) as answer:
                    answer.raise_for_status()
                    samples = parse_metrics(await answer.text(), (_CAPACITY, _ARRIVALS))
                return parse_report(samples, time.monotonic())
        return None
