"""Models that are slower in their slices than profiled. Pure functions.

For each model on each worker, the gateway counts the batches, their service time, and the time that they take by the
profile. A model is slow if its recent ratio of the two times is clearly above 1. A kind of slice is slow for a model if
the model is slow in each slice of the kind; then the next plans scale its profile. If it is slow in only some of them,
that is reported, since no profile describes it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from jigsaw_triton.compiler.bundle import Worker
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from jigsaw_triton.servers.metrics import Sample

_BATCHES = "jigsaw_service_batches_total"
_SECONDS = "jigsaw_service_seconds_total"
_PROFILED = "jigsaw_service_profiled_seconds_total"

_RATIO_STEP = 0.05
"""Step to which ratios are rounded, so that small changes of a ratio do not change the profiles that plans use."""

_FORGOTTEN = 0.01
"""Weighted number of batches up to which the times of a model are dropped: its worker has gone."""


class Served(NamedTuple):
    """A model on a worker: names of its graph, task, variant and worker."""

    graph: str
    task: str
    variant: str
    worker: str


class Kind(NamedTuple):
    """A model on a kind of slice: names of its graph, task and variant, of the model of GPU, and of the slice."""

    graph: str
    task: str
    variant: str
    board: str
    slice: str


@dataclass(frozen=True, slots=True)
class Times:
    """Service times of some batches.

    Attributes:
        batches: Number of batches.
        seconds: Sum of their service times.
        profiled_s: Sum of their service times by the profile.
    """

    batches: float = 0.0
    seconds: float = 0.0
    profiled_s: float = 0.0

    @property
    def ratio(self) -> float:
        """Ratio of the measured to the profiled time."""
        return self.seconds / self.profiled_s if self.profiled_s > 0 else 1.0


ServedTimes = Mapping[Served, Times]


def read_times_by_batch(samples: Iterable[Sample]) -> dict[tuple[Served, str], Times]:
    """Reads the counters from samples of the gateway's /metrics: of each model on a worker, by profiled batch size."""
    found: dict[tuple[Served, str], dict[str, float]] = {}
    for sample in samples:
        if sample.name in (_BATCHES, _SECONDS, _PROFILED):
            served = Served(*(sample.labels.get(name, "") for name in Served._fields))
            found.setdefault((served, sample.labels.get("batch", "")), {})[sample.name] = sample.value
    return {s: Times(*(sums.get(name, 0.0) for name in (_BATCHES, _SECONDS, _PROFILED))) for s, sums in found.items()}


def read_times(samples: Iterable[Sample]) -> dict[Served, Times]:
    """Reads the counters from samples of the gateway's /metrics: of each model on a worker."""
    found: dict[Served, Times] = {}
    for (served, _), times in read_times_by_batch(samples).items():
        found[served] = _plus(found.get(served, Times()), times, 1.0)
    return found


def times_since(before: ServedTimes, now: ServedTimes) -> dict[Served, Times]:
    """Returns the times between two readings. A counter that went down has restarted from 0."""
    found = {}
    for served, times in now.items():
        start = before.get(served, Times())
        if times.batches < start.batches:
            start = Times()
        found[served] = _plus(times, start, -1.0)
    return found


def with_times(past: ServedTimes, more: ServedTimes, seconds: float, settings: Settings) -> dict[Served, Times]:
    """Returns times with exponential decay: the past ones weighted by their age, plus new ones.

    Args:
        past: Weighted times at the last update.
        more: Times since then.
        seconds: Seconds since the last update.
        settings: Settings, with the half-life.
    """
    kept = 0.5 ** (seconds / settings.slow_half_life_s)
    found = {s: _plus(more.get(s, Times()), past.get(s, Times()), kept) for s in past.keys() | more.keys()}
    return {served: times for served, times in found.items() if times.batches > _FORGOTTEN}


def judged(times: ServedTimes, slow: Mapping[Served, float], settings: Settings) -> dict[Served, float]:
    """Returns the ratio of each model that is slow, and 1 for each that is not; none for one with too few batches.

    Args:
        times: Recent times.
        slow: Ratio of each model that was slow so far. Such a model must be clearly faster to count as fast again.
        settings: Settings, with the thresholds.
    """
    found = {}
    for served, t in times.items():
        if t.batches < settings.slow_least:
            continue
        # A fixed delay of each call, such as that of a busy gateway, does not show that a slice is slow.
        over_ms = 1000 * (t.seconds - t.profiled_s) / t.batches
        least = (1 + settings.slow_over) / 2 if served in slow else settings.slow_over
        late = t.ratio > least and over_ms > settings.slow_over_ms
        found[served] = round(t.ratio / _RATIO_STEP) * _RATIO_STEP if late else 1.0
    return found


def sentences(before: Mapping[Served, float], now: Mapping[Served, float]) -> Iterator[str]:
    """Describes the models that have become slow, or are no longer slow."""
    for served, ratio in now.items():
        name = f"{served.graph}.{served.task}.{served.variant} on {served.worker}"
        if ratio > 1 and served not in before:
            yield f"{name} takes {ratio:.2g} times as long as profiled"
        elif ratio == 1 and served in before:
            yield f"{name} is as fast as profiled again"


def unchanged(before: Wanted | None, after: Wanted) -> frozenset[str]:
    """Returns the graphs whose tasks and profiles are those of before, so that their service times still say something.

    Args:
        before: Input of the deployment so far; None if there is none.
        after: Input of a new deploy.
    """
    if before is None:
        return frozenset()
    nothing = ProfileTable(())
    return frozenset(
        name
        for name, graph in after.graphs.items()
        if name in before.graphs
        and before.graphs[name].tasks == graph.tasks
        and before.profiles.get(name, nothing).rows() == after.profiles.get(name, nothing).rows()
    )


def slow_kinds(
    known: Mapping[Kind, float], verdicts: Mapping[Served, float], workers: Mapping[str, Worker]
) -> dict[Kind, float]:
    """Returns the ratio of each kind of slice that is slow for a model: the least of its slices.

    Args:
        known: Kinds that were slow so far. They remain so while none of their slices is measured.
        verdicts: Models that have been judged, by `judged`.
        workers: Workers that exist, by name.
    """
    least: dict[Kind, float] = {}
    for served, ratio in verdicts.items():
        worker = workers.get(served.worker)
        if worker is not None and worker.place is not None:
            place = worker.place
            kind = Kind(served.graph, served.task, served.variant, place.board, place.placement.slice)
            least[kind] = min(ratio, least.get(kind, ratio))
    return {kind: ratio for kind, ratio in {**known, **least}.items() if ratio > 1}


def slowed(profiles: Mapping[str, ProfileTable], slow: Mapping[Kind, float]) -> dict[str, ProfileTable]:
    """Returns the profiles with the latencies and throughputs of slow kinds of slices scaled."""
    return {
        graph: _slowed(table, tuple(sorted((k, ratio) for k, ratio in slow.items() if k.graph == graph)))
        for graph, table in profiles.items()
    }


@lru_cache(maxsize=128)
def _slowed(table: ProfileTable, slow: tuple[tuple[Kind, float], ...]) -> ProfileTable:
    """Returns a scaled table; cached, since the planner caches what it computes from a table."""
    ratios = {kind[1:]: ratio for kind, ratio in slow}
    return ProfileTable(_scaled(row, ratios) for row in table.rows()) if slow else table


def _scaled(row: ProfileRow, ratios: Mapping[tuple[str, str, str, str], float]) -> ProfileRow:
    ratio = ratios.get((row.key.task, row.key.variant, row.key.gpu, row.key.slice), 1.0)
    if ratio == 1:
        return row
    return replace(
        row,
        latency_p50_ms=row.latency_p50_ms * ratio,
        latency_p95_ms=row.latency_p95_ms * ratio,
        latency_p99_ms=row.latency_p99_ms * ratio,
        throughput_rps=row.throughput_rps / ratio,
    )


def _plus(one: Times, other: Times, weight: float) -> Times:
    return Times(
        one.batches + weight * other.batches,
        one.seconds + weight * other.seconds,
        one.profiled_s + weight * other.profiled_s,
    )
