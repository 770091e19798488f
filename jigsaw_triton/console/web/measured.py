"""Measurements of tasks, variants and workers, from two readings of the gateway's metrics. Pure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from jigsaw_triton.controller.core.load_sample import quantile_ms
from jigsaw_triton.runtime.chains import members
from jigsaw_triton.servers.metrics import Sample

NAMES = (
    "jigsaw_slo_total",
    "jigsaw_wait_seconds_sum",
    "jigsaw_wait_seconds_count",
    "jigsaw_dispatch_seconds_bucket",
    "jigsaw_batch_seconds_bucket",
    "jigsaw_batch_items_sum",
    "jigsaw_service_batches_total",
    "jigsaw_service_seconds_total",
    "jigsaw_service_profiled_seconds_total",
)
"""Names of the metrics that `read` needs."""

Key = tuple[str, ...]
"""Name of a metric, and the values of its labels."""

_LABELS = ("graph", "task", "variant", "worker")


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters of the gateway at one time.

    Attributes:
        at_s: Time of the reading.
        counts: (Metric, graph, task, variant, worker) -> value. Labels that a metric lacks are empty.
        buckets: (Histogram, graph, task, variant, worker) -> upper bound of a bucket in seconds -> number of values up
            to it.
    """

    at_s: float
    counts: Mapping[Key, float]
    buckets: Mapping[Key, Mapping[float, float]]


@dataclass(frozen=True, slots=True)
class Times:
    """Calls of a task or a variant.

    Attributes:
        rate_rps: Calls a second.
        p50_ms: Median time of a call; None without calls.
        p99_ms: 99th percentile of that time; None without calls, or if it lies beyond the histogram.
        queue_ms: Mean time in the queue before; None for a variant.
    """

    rate_rps: float
    p50_ms: float | None
    p99_ms: float | None
    queue_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """Batches that a model on a worker has answered.

    Attributes:
        batches_rps: Batches a second.
        mean_ms: Mean time of a batch.
        slowdown: Ratio of that time to the profile; None without a profile.
    """

    batches_rps: float
    mean_ms: float
    slowdown: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements between two readings. What was not called is absent.

    Attributes:
        tasks: (Graph, task) -> its calls.
        variants: (Graph, task, variant) -> its calls.
        services: (Worker, graph, task, variant) -> its batches.
        answered_rps: Graph -> answers a second. Only fronts of whole graphs count them.
    """

    tasks: Mapping[tuple[str, str], Times] = field(default_factory=dict)
    variants: Mapping[tuple[str, str, str], Times] = field(default_factory=dict)
    services: Mapping[tuple[str, str, str, str], Service] = field(default_factory=dict)
    answered_rps: Mapping[str, float] = field(default_factory=dict)


def read(samples: Iterable[Sample], at_s: float) -> Reading:
    """Reads the counters from samples of the gateway's /metrics."""
    counts: dict[Key, float] = {}
    buckets: dict[Key, dict[float, float]] = {}
    for sample in samples:
        if sample.name not in NAMES or sample.labels.get("outcome") == "failed":
            continue
        key = (sample.name, *(sample.labels.get(label, "") for label in _LABELS))
        if "le" in sample.labels:
            buckets.setdefault(key, {})[float(sample.labels["le"])] = sample.value
        else:
            # The label of the batch size is left out, so the counters of all batch sizes of a model are added up.
            counts[key] = counts.get(key, 0.0) + sample.value
    return Reading(at_s, counts, buckets)


def measured(before: Reading, now: Reading) -> Measured:
    """Returns the measurements between two readings."""
    elapsed_s = now.at_s - before.at_s
    if elapsed_s <= 0:
        return Measured()
    counts = {key: value - _start(before.counts.get(key, 0.0), value) for key, value in now.counts.items()}
    buckets = {key: _bucket_counts(before.buckets.get(key, {}), value) for key, value in now.buckets.items()}
    variants: dict[tuple[str, str, str], Times] = {}
    items: dict[tuple[str, str], float] = {}
    for (name, graph, chain, chained, _), count in counts.items():
        if name != "jigsaw_batch_items_sum" or count <= 0:
            continue
        within = buckets.get(("jigsaw_batch_seconds_bucket", graph, chain, chained, ""), {})
        for task, variant in zip(members(chain), members(chained), strict=False):
            times = Times(count / elapsed_s, quantile_ms(within, 0.5), quantile_ms(within, 0.99))
            variants[graph, task, variant] = times
            items[graph, task] = items.get((graph, task), 0.0) + count
    answered = {key[1]: n / elapsed_s for key, n in counts.items() if key[0] == "jigsaw_slo_total" and n > 0}
    return Measured(_tasks(items, counts, buckets, elapsed_s), variants, _services(counts, elapsed_s), answered)


def _tasks(
    items: Mapping[tuple[str, str], float],
    counts: Mapping[Key, float],
    buckets: Mapping[Key, Mapping[float, float]],
    elapsed_s: float,
) -> dict[tuple[str, str], Times]:
    found = {}
    for (name, graph, chain, *_), within in buckets.items():
        if name != "jigsaw_dispatch_seconds_bucket":
            continue
        waits = counts.get(("jigsaw_wait_seconds_count", graph, chain, "", ""), 0.0)
        waited_s = counts.get(("jigsaw_wait_seconds_sum", graph, chain, "", ""), 0.0)
        for task in members(chain):
            if (graph, task) in items and within.get(math.inf, 0.0) > 0:
                found[graph, task] = Times(
                    items[graph, task] / elapsed_s,
                    quantile_ms(within, 0.5),
                    quantile_ms(within, 0.99),
                    1000 * waited_s / waits if waits else 0.0,
                )
    return found


def _services(counts: Mapping[Key, float], elapsed_s: float) -> dict[tuple[str, str, str, str], Service]:
    found = {}
    for (name, graph, task, variant, worker), batches in counts.items():
        if name != "jigsaw_service_batches_total" or batches <= 0:
            continue
        took_s = counts.get(("jigsaw_service_seconds_total", graph, task, variant, worker), 0.0)
        profiled_s = counts.get(("jigsaw_service_profiled_seconds_total", graph, task, variant, worker), 0.0)
        slowdown = took_s / profiled_s if profiled_s > 0 else None
        found[worker, graph, task, variant] = Service(batches / elapsed_s, 1000 * took_s / batches, slowdown)
    return found


def _start(before: float, now: float) -> float:
    """Returns the value at which the counting began. A counter that went down has restarted from 0."""
    return before if now >= before else 0.0


def _bucket_counts(before: Mapping[float, float], now: Mapping[float, float]) -> dict[float, float]:
    restarted = now.get(math.inf, 0.0) < before.get(math.inf, 0.0)
    return {bound: count - (0.0 if restarted else before.get(bound, 0.0)) for bound, count in now.items()}
