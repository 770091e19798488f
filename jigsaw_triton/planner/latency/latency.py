"""From a profile to the latency that a task is planned to take."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.problem import LOADS, MAX_SERVERS, REPLICA_RANGES, Options, ReplicaRange
from jigsaw_triton.planner.domain.rates import request_rows
from jigsaw_triton.planner.latency.pareto import ParetoFilter
from jigsaw_triton.planner.latency.queueing import many_latencies_ms
from jigsaw_triton.profiles.service import ServiceTime, service_times
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from jigsaw_triton.runtime.chains import members

ANY_NUMBER: ReplicaRange = (1, math.inf)

Array = NDArray[Any]


class Use(NamedTuple):
    """How a configuration may be used.

    Attributes:
        utilisation: Share of a replica's profiled throughput.
        latency_ms: That the task is planned to take at it.
        among: Numbers of replicas of the task that this holds for.
    """

    utilisation: float
    latency_ms: float
    among: ReplicaRange


def uses(
    graph: TaskGraph,
    usable: Sequence[ProfileRow],
    table: ProfileTable,
    options: Options,
    staying: Collection[ProfileKey] = (),
) -> Mapping[ProfileKey, Sequence[Use]]:
    """How configurations may be used: the more of their throughput, the longer they take.

    With the latency model `queue` what no plan needs, whatever the SLO, is left out: another configuration of the same
    variant on the same slice is at least as good at every load.

    Args:
        graph: Whose tasks they do.
        usable: Their profiles.
        table: All profiles of the graph, for what is known of smaller batches.
        options: How to plan.
        staying: Those that are not left out.
    """
    rows = request_rows(graph)
    if options.latency_model == "2p95":
        return {row.key: [Use(options.usable, two_p95_ms(row, rows[row.key.task]), ANY_NUMBER)] for row in usable}
    keys = tuple(sorted(row.key for row in usable))
    return _queue_uses(keys, table, tuple(rows.items()), task_quantile(graph), frozenset(staying)) if keys else {}


@lru_cache(maxsize=16)
def _queue_uses(
    usable: tuple[ProfileKey, ...],
    table: ProfileTable,
    rows: tuple[tuple[str, float], ...],
    quantile: float,
    staying: frozenset[ProfileKey],
) -> Mapping[ProfileKey, Sequence[Use]]:
    """What a controller that plans again asks for again and again; `rows` by task."""
    known = {row.key: row for row in table.rows()}
    return _Queues([known[key] for key in usable], dict(rows), quantile, service_times(table)).uses(staying)


class _Queues:
    """Latencies under load, by number of replicas: arrays of a row a profile and a column for each of `LOADS`.

    A task's replicas all pull from one queue. How long that takes is told as if they were alike, but is no less than
    the time of a full batch: among quicker replicas one finds its batch full, however little it is planned to do. It is
    worked out as late as possible, for it is what planning spends most of its time on: most configurations are
    dominated by what is already known.

    Args:
        usable: Profiles, in the order in which equals are preferred.
        rows: Of a request, by task.
        quantile: Of the latency.
        times: Of a batch.
    """

    def __init__(
        self,
        usable: Sequence[ProfileRow],
        rows: Mapping[str, float],
        quantile: float,
        times: Mapping[ProfileKey, ServiceTime],
    ) -> None:
        self._usable, self._quantile = usable, quantile
        self._times = [times[row.key] for row in usable]
        self._rows = np.array([rows[row.key.task] for row in usable])
        self._instances = np.array([row.key.instances for row in usable])
        self._full = np.array([_full(row, time) for row, time in zip(usable, self._times, strict=True)])
        self._full_ms = np.array([[time.full_ms(self._quantile)] for time in self._times])
        self._at: dict[int, Array] = {}
        groups: dict[tuple[str, ...], int] = {}
        for row in usable:
            groups.setdefault(_group(row), len(groups))
        self._pareto = ParetoFilter(
            np.repeat([groups[_group(row)] for row in usable], len(LOADS)),
            np.outer([row.throughput_rps for row in usable], LOADS).ravel(),
        )

    def uses(self, staying: Collection[ProfileKey]) -> dict[ProfileKey, list[Use]]:
        """By configuration, the ranges of replicas that it is worth having among, and all loads then."""
        stay = np.array([row.key in staying for row in self._usable])
        for inner in sorted({first for first, _ in REPLICA_RANGES[1:]}):
            self._know(inner, np.ones_like(stay))
        found: dict[ProfileKey, list[Use]] = {row.key: [] for row in self._usable}
        for among in REPLICA_RANGES:
            ends = (among[0], int(min(among[1], MAX_SERVERS)))
            # One end is known, and a bound from below on both.
            bound = self._slowest(n for n in ends if n in self._at)
            for n in ends:
                self._know(n, stay | self._some(self._pareto.front(bound.ravel())))
            exact = self._slowest(ends)
            for n in ends:
                self._know(n, self._some(~self._pareto.dominated(bound.ravel(), exact.ravel())))
            exact = self._slowest(ends)
            for i in np.flatnonzero(stay | self._some(self._pareto.front(exact.ravel()))).tolist():
                at = zip(LOADS, exact[i].tolist(), strict=True)
                found[self._usable[i].key] += [Use(load, ms, among) for load, ms in at if math.isfinite(ms)]
        return found

    def _know(self, replicas: int, which: Array) -> None:
        """Works out the latencies of these profiles among so many replicas, where that is not done."""
        at = self._at.setdefault(replicas, np.full((len(self._usable), len(LOADS)), math.nan))
        missing = np.flatnonzero(which & np.isnan(at[:, 0]))
        if len(missing):
            alike = many_latencies_ms(
                self._times,
                np.repeat(missing, len(LOADS)),
                np.repeat(np.minimum(replicas * self._instances[missing], MAX_SERVERS), len(LOADS)),
                np.outer(self._full[missing], LOADS).ravel(),
                np.repeat(self._rows[missing], len(LOADS)),
                self._quantile,
            )
            at[missing] = np.maximum(alike.reshape(-1, len(LOADS)), self._full_ms[missing])

    def _slowest(self, replicas: Iterable[int]) -> Array:
        """Over these numbers of replicas and all smaller loads; infinite where one of them is not known.

        A replica may be less busy than planned, and predictions do not rise quite everywhere.
        """
        ms = np.max([self._at[n] for n in replicas], axis=0)
        return np.maximum.accumulate(np.where(np.isnan(ms), math.inf, ms), axis=1)

    def _some(self, points: Array) -> Array:
        """The profiles of which some load is among the points."""
        rows: Array = points.reshape(len(self._usable), len(LOADS)).any(axis=1)
        return rows


def _group(row: ProfileRow) -> tuple[str, ...]:
    """Where one configuration may stand in for another."""
    return (row.key.task, row.key.variant, row.key.gpu, row.key.slice)


def _full(row: ProfileRow, time: ServiceTime) -> float:
    """The load at the profiled throughput; more than 1 where the profiled latencies do not allow for that."""
    return row.throughput_rps * time.occupied_ms / (1000 * row.key.batch * row.key.instances)


def task_quantile(graph: TaskGraph) -> float:
    """The quantile that each task's latency is planned at, so that a request keeps the SLO's percentile.

    Percentiles do not add up along a path. But a request is late only if one of its tasks takes longer than planned,
    and of n tasks, each at 1 - (1 - q) / n, that happens to at most a share 1 - q, however they depend on each other
    (the union bound over all tasks of the graph, since where paths join it is not one path alone that counts). It is
    careful: were the tasks independent, the sum would stay far below the sum of such quantiles. What is left in hand
    covers what the queueing model leaves out: that a task hands on its results in batches, not one by one.
    """
    return 1 - (1 - graph.slo.percentile / 100) / sum(len(members(task)) for task in graph.tasks)


def two_p95_ms(row: ProfileRow, rows: float) -> float:
    """Latency of a task for one request by the rule of twice the 95th percentile, extended to fan-out.

    Devata, Singh and Adve (arXiv 2603.08797) plan with 2 x p95: one batch is waited for, one is the request's own. A
    request that brings `rows` rows to a task fills ceil(rows / (batch x instances)) rounds of a replica, all instances
    running at once (the profile is of all of them busy). So it takes p95 x (1 + rounds): with one row the paper's rule.
    That the rows of a request may spread over several replicas is not counted on; that a request may bring more rows
    than expected is not guarded against, beyond what a percentile for every batch leaves in hand. The SLO's own
    percentile does not enter.

    Args:
        row: The configuration's profile.
        rows: Expected rows a request.
    """
    rounds = max(1, math.ceil(rows / (row.key.batch * row.key.instances) - 1e-9))
    return row.latency_p95_ms * (1 + rounds)
