"""Keeps the weights of a front's cells at what the cells report that they carry."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from jigsaw_triton.front.config import STANDBY
from jigsaw_triton.front.haproxy_stats import Servers
from jigsaw_triton.front.model import Front, FrontCell
from jigsaw_triton.front.rules import backend
from jigsaw_triton.front.runtime_api import RuntimeApi
from jigsaw_triton.front.shares import shares, weights
from jigsaw_triton.servers.edge.config import PROTOCOLS
from jigsaw_triton.servers.metrics import Sample, parse_metrics

INTERVAL_S = 1.0
"""Seconds between two readings of the cells' metrics."""

_ANSWER_S = 2.0
_CAPACITY, _ARRIVALS, _REFUSED = "jigsaw_capacity_rps", "jigsaw_arrivals_total", "jigsaw_refused_total"

_OVERLOAD = frozenset({"full", "late", "worker"})
"""Reasons for which a cell refuses requests that another one may answer. The others are faults of the request."""

_WINDOW = 4
"""Readings over which the load is averaged, so that a peak of a second moves no weight."""

_REFUSES, _RAISE = 0.01, 1.1
"""Share of refused requests above which a cell carries only what it answers, and the factor by which this limit rises
with each reading at which the cell refuses none."""


@dataclass(frozen=True, slots=True)
class Report:
    """Report of a cell's gateway.

    Attributes:
        at_s: Second at which it was read.
        capacity_rps: Graph -> requests per second that the cell carries.
        arrivals: Graph -> requests that have arrived since the gateway started.
        refused: Graph -> those of them that the cell could not answer.
    """

    at_s: float
    capacity_rps: Mapping[str, float]
    arrivals: Mapping[str, float]
    refused: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Load:
    """Recent reports of a cell, and what follows from them.

    Attributes:
        reports: Reports, the latest last.
        limits_rps: Graph -> requests per second that the cell has shown to carry, since it refused requests.
    """

    reports: deque[Report] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    limits_rps: dict[str, float] = field(default_factory=dict)

    def add(self, report: Report | None) -> None:
        """Adds a report. None, if the gateway did not answer, discards the earlier reports, which are outdated then."""
        if report is None:
            self.reports.clear()
            self.limits_rps.clear()
            return
        if self.reports:
            for graph in report.arrivals:
                self._limit(graph, [self.reports[-1], report])
        self.reports.append(report)

    def _limit(self, graph: str, last: Sequence[Report]) -> None:
        """Sets or raises the limit of a graph by what happened between the last two reports."""
        arrivals_rps = _rate(last, lambda report: report.arrivals.get(graph, 0.0))
        refused_rps = _rate(last, lambda report: report.refused.get(graph, 0.0))
        if arrivals_rps <= 0:
            # Without requests, the reports give no reason to change the limit.
            return
        if refused_rps > _REFUSES * arrivals_rps:
            self.limits_rps[graph] = max(0.0, arrivals_rps - refused_rps)
        elif graph in self.limits_rps:
            raised_rps = _RAISE * max(self.limits_rps[graph], arrivals_rps)
            self.limits_rps[graph] = raised_rps
            if raised_rps >= last[-1].capacity_rps.get(graph, 2 * arrivals_rps):
                del self.limits_rps[graph]

    def rate_rps(self, graph: str) -> float | None:
        """Returns the requests per second to a graph; None if two reports are not there yet."""
        if len(self.reports) < 2:
            return None
        return _rate(self.reports, lambda report: report.arrivals.get(graph, 0.0))

    def capacity_rps(self, graph: str) -> float | None:
        """Returns the requests per second that the cell carries; None if that is not known.

        After it has refused requests, it carries what it answered then, whatever capacity its plan has: machines may be
        lost. The limit rises as long as it refuses none.
        """
        if len(self.reports) < 2:
            return None
        planned_rps, limit_rps = self.reports[-1].capacity_rps.get(graph), self.limits_rps.get(graph)
        known = [rps for rps in (planned_rps, limit_rps) if rps is not None]
        return min(known) if known else None


def _rate(reports: Sequence[Report], count: Callable[[Report], float]) -> float:
    """Returns the growth of a counter per second. The counter of a gateway that has restarted begins at 0."""
    first, last = reports[0], reports[-1]
    return max(0.0, count(last) - count(first)) / max(last.at_s - first.at_s, 1e-3)


def parse_report(samples: Sequence[Sample], at_s: float) -> Report:
    """Returns the report in a gateway's metrics."""
    found: dict[str, dict[str, float]] = {_CAPACITY: {}, _ARRIVALS: {}, _REFUSED: {}}
    for sample in samples:
        if sample.name not in found or "graph" not in sample.labels:
            continue
        if sample.name == _REFUSED and sample.labels.get("reason") not in _OVERLOAD:
            continue
        by_graph, graph = found[sample.name], sample.labels["graph"]
        by_graph[graph] = by_graph.get(graph, 0.0) + sample.value
    return Report(at_s, found[_CAPACITY], found[_ARRIVALS], found[_REFUSED])


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
        own = {cell.name: loads[cell.name] for cell in cells if cell.name in loads}
        known = {name: load.capacity_rps(graph) for name, load in own.items()}
        capacity_rps = {name: capacity for name, capacity in known.items() if capacity is not None}
        load_rps = sum(own[name].rate_rps(graph) or 0.0 for name in capacity_rps)
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
                    samples = parse_metrics(await answer.text(), (_CAPACITY, _ARRIVALS, _REFUSED))
                return parse_report(samples, time.monotonic())
        return None
