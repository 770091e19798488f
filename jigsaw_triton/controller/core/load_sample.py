"""Samples of the load, from the gateway's counters: what each graph received and answered. Pure functions."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jigsaw_triton.controller.core.arrivals import arrived
from jigsaw_triton.controller.core.counters import counted_since
from jigsaw_triton.controller.core.request_counts import (
    CountsByGeneration,
    RequestCounts,
    read_request_counts,
    request_counts_since,
)
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.paths import longest_path
from jigsaw_triton.runtime.chains import members
from jigsaw_triton.servers.metrics import Sample

_REFUSED_BECAUSE = ("late", "full")
"""Reasons for which a front refuses a request, of those with which a request may fail."""

_ABANDONED = "cancelled"

Counters = Mapping[tuple[str, ...], float]
"""(Kind of counter, graph, and for items the task and the variant) -> value."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters of the gateway at one time.

    Attributes:
        counters: Requests by outcome, and items by variant.
        requests: Requests of each generation, with their latencies.
    """

    counters: Counters
    requests: CountsByGeneration


@dataclass(frozen=True, slots=True)
class GraphSample:
    """The load of one graph between two readings.

    Attributes:
        arrivals_rps: Requests that arrived, a second.
        served_rps: Requests that were answered, a second.
        refused_rps: Requests that were refused because they would be late or a queue was full, a second.
        failed_rps: Requests that failed for another reason, a second, without those that their client abandoned.
        p50_ms: Median latency of the answers; None without answers.
        p99_ms: 99th percentile of that latency; None without answers, or if it lies beyond the histogram.
        accuracy: Relative accuracy of the variants that served, as the mean over requests; None without answers.
    """

    arrivals_rps: float
    served_rps: float
    refused_rps: float
    failed_rps: float
    p50_ms: float | None
    p99_ms: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class LoadSample:
    """The load between two readings.

    Attributes:
        t: Time of the second reading, in seconds since 1970.
        slices: Compute slices in use.
        graphs: Graph -> its load.
        joules_per_request: Energy of the GPUs for each request that was answered in the last seconds; None if it is
            unknown.
    """

    t: float
    slices: int
    graphs: Mapping[str, GraphSample]
    joules_per_request: float | None = None


def read_load(samples: Iterable[Sample]) -> Reading:
    """Reads the counters from samples of the gateway's /metrics."""
    samples = tuple(samples)
    counters: dict[tuple[str, ...], float] = {("arrived", graph): count for graph, count in arrived(samples).items()}
    models: dict[tuple[str, ...], float] = {}

    def add(to: dict[tuple[str, ...], float], key: tuple[str, ...], value: float) -> None:
        to[key] = to.get(key, 0.0) + value

    for sample in samples:
        labels = sample.labels
        match sample.name:
            case "jigsaw_slo_total":
                outcome = "unanswered" if labels["outcome"] == "failed" else "answered"
                add(counters, (outcome, labels["graph"]), sample.value)
            case "jigsaw_refused_total" if labels["reason"] in _REFUSED_BECAUSE:
                add(counters, ("refused", labels["graph"]), sample.value)
            case "jigsaw_refused_total" if labels["reason"] == _ABANDONED:
                add(counters, ("abandoned", labels["graph"]), sample.value)
            case "jigsaw_batch_items_sum":
                add(counters, ("items", labels["graph"], labels["task"], labels["variant"]), sample.value)
            case "nv_inference_request_success":
                add(models, ("answered", labels["model"]), sample.value)
            case "nv_inference_request_failure":
                add(models, ("unanswered", labels["model"]), sample.value)
    # Only fronts of whole graphs count outcomes. For other targets, Triton counts those of the graph's model.
    for (outcome, model), value in models.items():
        if ("answered", model) not in counters and ("arrived", model) in counters:
            counters[(f"{outcome} by model", model)] = value
    return Reading(counters, read_request_counts(samples))


def load_between(before: Reading, now: Reading, elapsed_s: float, state: State, at_s: float) -> LoadSample:
    """Returns the load between two readings of the gateway's counters.

    Args:
        before: Earlier reading.
        now: Later reading.
        elapsed_s: Seconds between them.
        state: State of the controller, with the graphs that are served.
        at_s: Time of the later reading, in seconds since 1970.
    """
    counted = counted_since(before.counters, now.counters)
    latencies: dict[str, RequestCounts] = {}
    for (served, _), counts in request_counts_since(before.requests, now.requests).items():
        latencies[served] = latencies.get(served, RequestCounts()) + counts
    graphs = state.running.wanted.graphs if state.running is not None else {}

    def rate(kind: str, name: str) -> float:
        return (counted.get((kind, name), 0.0) + counted.get((f"{kind} by model", name), 0.0)) / elapsed_s

    found = {}
    for name, graph in graphs.items():
        within = latencies.get(name, RequestCounts()).within
        refused_rps = rate("refused", name)
        found[name] = GraphSample(
            arrivals_rps=rate("arrived", name),
            served_rps=rate("answered", name),
            refused_rps=refused_rps,
            failed_rps=max(0.0, rate("unanswered", name) - refused_rps - rate("abandoned", name)),
            p50_ms=quantile_ms(within, 0.5),
            p99_ms=quantile_ms(within, 0.99),
            accuracy=_accuracy(graph, counted),
        )
    return LoadSample(at_s, slices_in_use(state), found)


def quantile_ms(within: Mapping[float, float], quantile: float) -> float | None:
    """Returns a quantile of a histogram in milliseconds, interpolated within its bucket.

    Args:
        within: Upper bound of a bucket in seconds -> number of values up to it.
        quantile: Quantile, from 0 to 1.

    Returns:
        The quantile; None if the histogram is empty, or the quantile lies in its last bucket, which has no bound.
    """
    total = within.get(math.inf, 0.0)
    if total <= 0:
        return None
    lower_s, below = 0.0, 0.0
    for bound_s, count in sorted(within.items()):
        if count >= quantile * total:
            if math.isinf(bound_s):
                return None
            part = (quantile * total - below) / (count - below) if count > below else 1.0
            return 1000 * (lower_s + part * (bound_s - lower_s))
        lower_s, below = bound_s, count
    return None


def slices_in_use(state: State) -> int:
    """Returns the compute slices of the MIG instances that exist now."""
    wanted = state.wanted
    boards = {gpu.id: gpu.board for gpu in wanted.cluster.gpus} if wanted is not None else {}
    places = {(w.place.gpu, w.place.placement) for w in state.actual.workers.values() if w.place is not None}
    profiles = (boards[gpu].profile(placement.slice) for gpu, placement in places if gpu in boards)
    return sum(profile.compute_slices for profile in profiles if profile is not None)


def _accuracy(graph: TaskGraph, counted: Counters) -> float | None:
    """Returns the product, along the worst path, of each task's mean relative accuracy; None without items."""
    items: dict[str, dict[str, float]] = {}
    for key, count in counted.items():
        if key[0] == "items" and key[1] == graph.name and count > 0:
            for member, variant in zip(members(key[2]), members(key[3]), strict=False):
                of_task = items.setdefault(member, {})
                of_task[variant] = of_task.get(variant, 0.0) + count
    loss = {}
    for name, task in graph.tasks.items():
        served = {v.name: items.get(name, {}).get(v.name, 0.0) * v.accuracy / task.best_accuracy for v in task.variants}
        total = sum(items.get(name, {}).get(v.name, 0.0) for v in task.variants)
        loss[name] = -math.log(sum(served.values()) / total) if total else 0.0
    if not items:
        return None
    return math.exp(-sum(loss[task] for task in longest_path(graph, loss)))
