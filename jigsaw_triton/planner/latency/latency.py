"""Planned latency of a task, predicted from its profile."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.problem import LOADS, MAX_SERVERS, REPLICA_RANGES, Options, ReplicaRange
from jigsaw_triton.planner.domain.rates import request_rows
from jigsaw_triton.planner.domain.remembered import remembered
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR
from jigsaw_triton.planner.latency.pareto import ParetoFilter
from jigsaw_triton.planner.latency.queueing import many_latencies_ms
from jigsaw_triton.profiles.service import ServiceTime, service_times
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from jigsaw_triton.runtime.chains import members

ANY_NUMBER: ReplicaRange = (1, math.inf)
"""Range of a latency that does not depend on the number of replicas."""

Array = NDArray[Any]


class Use(NamedTuple):
    """A utilisation at which a configuration may be used, and the latency there.

    Attributes:
        utilisation: Share of a replica's profiled throughput that is used.
        latency_ms: Planned latency of the task.
        replica_range: Range of the task's number of replicas for which the latency holds.
    """

    utilisation: float
    latency_ms: float
    replica_range: ReplicaRange


def uses(
    graph: TaskGraph,
    usable: Sequence[ProfileRow],
    table: ProfileTable,
    options: Options,
    staying: Collection[ProfileKey] = (),
) -> Mapping[ProfileKey, Sequence[Use]]:
    """Returns the uses of each configuration: the higher the utilisation, the longer the latency.

    With the latency model `queue`, configurations that no plan needs, whatever the SLO, get no uses: another
    configuration of the same variant on the same slice is at least as good at every load.

    Args:
        graph: Graph of the tasks.
        usable: Profiles of the configurations.
        table: All profiles of the graph, which include those of smaller batches.
        options: Options of planning.
        staying: Configurations that keep their uses even if dominated.
    """
    return uses_by_rows(usable, table, options, request_rows(graph), task_quantile(graph), staying)


def uses_by_rows(
    usable: Sequence[ProfileRow],
    table: ProfileTable,
    options: Options,
    rows: Mapping[str, float],
    quantile: float,
    staying: Collection[ProfileKey] = (),
) -> Mapping[ProfileKey, Sequence[Use]]:
    """Returns the uses of each configuration; see `uses`.

    Args:
        usable: Profiles of the configurations.
        table: All profiles of the graph.
        options: Options of planning.
        rows: Task -> rows of a request.
        quantile: Quantile of each task's latency.
        staying: Configurations that keep their uses even if dominated.
    """
    if options.latency_model == "2p95":
        return {row.key: [Use(options.usable, two_p95_ms(row, rows[row.key.task]), ANY_NUMBER)] for row in usable}
    keys = tuple(sorted(row.key for row in usable))
    if not keys:
        return {}
    tasks = tuple(sorted({key.task for key in keys}))
    return _queue_uses((table, tasks), keys, tuple(rows[task] for task in tasks), quantile, frozenset(staying))


@remembered()
def _queue_uses(
    of: tuple[ProfileTable, tuple[str, ...]],
    usable: tuple[ProfileKey, ...],
    rows: tuple[float, ...],
    quantile: float,
    staying: frozenset[ProfileKey],
) -> Mapping[ProfileKey, Sequence[Use]]:
    """Returns the uses with the latency model `queue`; remembered, as one plan asks for them several times."""
    return _queues(of, usable, rows, quantile).uses(staying)


@remembered()
def _queues(
    of: tuple[ProfileTable, tuple[str, ...]],
    usable: tuple[ProfileKey, ...],
    rows: tuple[float, ...],
    quantile: float,
) -> "_Queues":
    """Returns the queues of these profiles; remembered, as a controller plans with the same profiles often.

    Args:
        of: All profiles of the graph, and the tasks of those in use.
        usable: Profiles in use.
        rows: Rows of a request, for each of the tasks.
        quantile: Quantile of the latency.
    """
    table, tasks = of
    known = {row.key: row for task in tasks for row in table.rows(task=task)}
    return _Queues([known[key] for key in usable], dict(zip(tasks, rows, strict=True)), quantile, service_times(table))


class _Queues:
    """Latencies under load by number of replicas: arrays with a row for each profile and a column for each of `LOADS`.

    A task's replicas all pull from one queue. The prediction assumes identical replicas, but is at least the time of a
    full batch: next to faster replicas, a slow one finds its batch full, however little it is planned to do.
    Predictions are the most expensive part of planning, so they are computed as late as possible; most configurations
    are dominated by those already computed. They are also remembered, but each answer is as if they were not.

    Args:
        usable: Profiles, in order of preference between equals.
        rows: Task -> rows of a request.
        quantile: Quantile of the latency.
        times: Configuration -> service time of a batch.
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
        self._full_load = np.array([_full_load(row, time) for row, time in zip(usable, self._times, strict=True)])
        self._full_ms = np.array([[time.full_ms(self._quantile)] for time in self._times])
        self._known: dict[int, Array] = {}
        groups: dict[tuple[str, ...], int] = {}
        for row in usable:
            groups.setdefault(_group(row), len(groups))
        self._pareto = ParetoFilter(
            np.repeat([groups[_group(row)] for row in usable], len(LOADS)),
            np.outer([row.throughput_rps for row in usable], LOADS).ravel(),
        )

    def uses(self, staying: Collection[ProfileKey]) -> dict[ProfileKey, list[Use]]:
        """Returns the uses of each configuration: all loads, for each range of replicas in which it is worthwhile."""
        # The arrays are copied, because other threads may read the shared ones.
        known = {replicas: ms.copy() for replicas, ms in self._known.items()}
        keep = np.array([row.key in staying for row in self._usable])
        ms: dict[int, Array] = {}
        self._know(known, {n: keep for replica_range in REPLICA_RANGES for n in _ends(replica_range)})
        for inner in sorted({first for first, _ in REPLICA_RANGES[1:]}):
            self._compute(known, ms, inner, np.ones_like(keep))
        found: dict[ProfileKey, list[Use]] = {row.key: [] for row in self._usable}
        for replica_range in REPLICA_RANGES:
            ends = _ends(replica_range)
            # The latency at the end that is known is a lower bound on the latency of the range.
            bound = _slowest([ms[n] for n in ends if n in ms])
            for n in ends:
                self._compute(known, ms, n, keep | self._any_load(self._pareto.front(bound.ravel())))
            exact = _slowest([ms[n] for n in ends])
            for n in ends:
                self._compute(known, ms, n, self._any_load(~self._pareto.dominated(bound.ravel(), exact.ravel())))
            exact = _slowest([ms[n] for n in ends])
            for i in np.flatnonzero(keep | self._any_load(self._pareto.front(exact.ravel()))).tolist():
                at = zip(LOADS, exact[i].tolist(), strict=True)
                found[self._usable[i].key] += [
                    Use(load, took, replica_range) for load, took in at if math.isfinite(took)
                ]
        self._known = known
        return found

    def _compute(self, known: dict[int, Array], ms: dict[int, Array], replicas: int, selected: Array) -> None:
        """Adds the latencies of the selected profiles for this number of replicas; those not selected are not known."""
        self._know(known, {replicas: selected})
        shown = ms.setdefault(replicas, np.full((len(self._usable), len(LOADS)), math.nan))
        shown[selected] = known[replicas][selected]

    def _know(self, known: dict[int, Array], selected: Mapping[int, Array]) -> None:
        """Computes the latencies that are not known yet, all at once, which is faster than one by one.

        Args:
            known: Number of replicas -> known latencies, which are added to.
            selected: Number of replicas -> mask of profiles.
        """
        missing: dict[int, Array] = {}
        for replicas, mask in selected.items():
            ms = known.setdefault(replicas, np.full((len(self._usable), len(LOADS)), math.nan))
            missing[replicas] = np.flatnonzero(mask & np.isnan(ms[:, 0]))
        which = np.concatenate([*missing.values()])
        if not len(which):
            return
        replicas_of = np.repeat([*missing], [len(rows) for rows in missing.values()])
        identical = many_latencies_ms(
            self._times,
            np.repeat(which, len(LOADS)),
            np.repeat(np.minimum(replicas_of * self._instances[which], MAX_SERVERS), len(LOADS)),
            np.outer(self._full_load[which], LOADS).ravel(),
            np.repeat(self._rows[which], len(LOADS)),
            self._quantile,
        )
        found = np.maximum(identical.reshape(-1, len(LOADS)), self._full_ms[which])
        for replicas, rows in missing.items():
            known[replicas][rows], found = found[: len(rows)], found[len(rows) :]

    def _any_load(self, points: Array) -> Array:
        """Returns the mask of profiles for which any load is among the points."""
        rows: Array = points.reshape(len(self._usable), len(LOADS)).any(axis=1)
        return rows


def _ends(replica_range: ReplicaRange) -> tuple[int, int]:
    """Returns the ends of a range, as far as they make a difference."""
    return replica_range[0], int(min(replica_range[1], MAX_SERVERS))


def _slowest(ms: Sequence[Array]) -> Array:
    """Returns the largest of the latencies, over all smaller loads as well; infinite if one is unknown.

    Smaller loads count because a replica may be less busy than planned, and predictions are not quite monotonic.
    """
    slowest = np.max(ms, axis=0)
    return np.maximum.accumulate(np.where(np.isnan(slowest), math.inf, slowest), axis=1)


def _group(row: ProfileRow) -> tuple[str, ...]:
    """Returns the key of configurations that may replace each other."""
    return (row.key.task, row.key.variant, row.key.gpu, row.key.slice)


def _full_load(row: ProfileRow, time: ServiceTime) -> float:
    """Returns the load at the profiled throughput; above 1 if the profiled latencies contradict that throughput."""
    return row.throughput_rps * time.occupied_ms / (1000 * row.key.batch * row.key.instances)


def task_quantile(graph: TaskGraph) -> float:
    """Returns the quantile at which each task's latency is planned so that a request keeps the SLO's percentile.

    Percentiles do not add up along a path. But a request is late only if one of its tasks takes longer than planned,
    and with n tasks, each planned at 1 - (1 - q) / n, that happens to at most a share 1 - q of requests, however the
    tasks depend on each other. This is the union bound over all tasks of the graph; a single path would not suffice
    where paths join. The bound is conservative: for independent tasks, the quantile of the sum is far below the sum of
    these quantiles. The slack covers an effect that the queueing model omits: a task hands on its results in batches,
    not one by one.
    """
    return 1 - (1 - graph.slo.percentile / 100) / sum(len(members(task)) for task in graph.tasks)


def two_p95_ms(row: ProfileRow, rows: float) -> float:
    """Returns the latency of a task for one request by the rule of twice the 95th percentile, extended to fan-out.

    Devata, Singh and Adve (arXiv 2603.08797) plan with 2 x p95: the request waits for one batch and then runs in its
    own. A request that brings `rows` rows to a task fills ceil(rows / (batch x instances)) rounds of a replica whose
    instances all run at once (as they do in the profile). So it takes p95 x (1 + rounds), which is the paper's rule for
    one row. The formula does not assume that a request's rows spread over several replicas. If a request brings more
    rows than expected, only the slack of using a percentile for every batch absorbs them. The SLO's own percentile does
    not enter.

    Args:
        row: Profile of the configuration.
        rows: Expected rows for each request.
    """
    rounds = max(1, math.ceil(rows / (row.key.batch * row.key.instances) - FLOAT_ERROR))
    return row.latency_p95_ms * (1 + rounds)
