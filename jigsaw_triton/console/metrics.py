"""Metrics of a controller in Prometheus' text format. Pure.

The number of series is bounded by the cluster and the graphs: no label has a generation, a request or a text.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from jigsaw_triton import __version__
from jigsaw_triton.controller.core.state import GATEWAY, Phase
from jigsaw_triton.controller.totals import Totals
from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.planner.domain.plan import Plan

CONTENT_TYPE = "text/plain; version=0.0.4"

OUTCOMES = ("serves", "unchanged", "failed")
"""Outcomes of changes that are counted. The others follow from later changes."""

NODE_STATES = ("ready", "cordoned", "agent away", "lost")

Status = Mapping[str, Any]
Samples = Iterator[tuple[tuple[str, ...], float | None]]
"""Values of the labels, and the value. Without a value there is no sample."""


class WorkerState(NamedTuple):
    """State of a worker.

    Attributes:
        name: Name of the worker.
        node: Node of its MIG instance; empty if it has none.
        slice: Kind of the instance; empty if it has none.
        up: True if it runs, and is not being restarted.
    """

    name: str
    node: str
    slice: str
    up: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """Values that the metrics show. They do not change, so another thread may write the text.

    Attributes:
        status: Result of `status.overview`.
        plan: Plan that serves; None if none does.
        workers: States of the workers.
        totals: Counts of the controller.
    """

    status: Status
    plan: Plan | None
    workers: tuple[WorkerState, ...]
    totals: Totals


@dataclass(frozen=True, slots=True)
class Family:
    """A metric.

    Attributes:
        name: Full name.
        labels: Names of its labels.
        meaning: Sentence that describes it.
        samples: Function that returns the samples.
    """

    name: str
    labels: tuple[str, ...]
    meaning: str
    samples: Callable[[Reading], Samples]

    @property
    def kind(self) -> Literal["gauge", "counter"]:
        """Kind of the metric, which follows from its name."""
        return "counter" if self.name.endswith("_total") else "gauge"

    def lines(self, reading: Reading) -> Iterator[str]:
        """Yields the lines of the metric, without any if it has no sample."""
        found = [(values, value) for values, value in self.samples(reading) if value is not None]
        if found:
            yield f"# HELP {self.name} {self.meaning}"
            yield f"# TYPE {self.name} {self.kind}"
        for values, value in found:
            labels = ",".join(f'{label}="{_escaped(text)}"' for label, text in zip(self.labels, values, strict=True))
            yield f"{self.name}{{{labels}}} {value:.15g}" if labels else f"{self.name} {value:.15g}"


def exposition(reading: Reading) -> str:
    """Returns the metrics."""
    return "".join(f"{line}\n" for family in FAMILIES for line in family.lines(reading))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _single(name: str, meaning: str, read: Callable[[Reading], float | None]) -> Family:
    """Returns a metric without labels."""
    return Family(name, (), meaning, lambda reading: iter([((), read(reading))]))


def _controller(name: str, meaning: str, read: Callable[[Status], float | None]) -> Family:
    return _single(f"jigsaw_controller_{name}", meaning, lambda reading: read(reading.status))


def _of_graphs(name: str, meaning: str, read: Callable[[Status], float | None]) -> Family:
    """Returns a gauge that each graph has.

    Args:
        name: Name.
        meaning: Sentence that describes it.
        read: Function that reads it from the status of a graph.
    """

    def samples(reading: Reading) -> Samples:
        for graph, found in reading.status["graphs"].items():
            yield (graph,), read(found)

    return Family(name, ("graph",), meaning, samples)


def _of_nodes(name: str, meaning: str, read: Callable[[Status], float]) -> Family:
    def samples(reading: Reading) -> Samples:
        for node in reading.status["nodes"]:
            yield (node["name"],), read(node)

    return Family(name, ("node",), meaning, samples)


def _of_plan(name: str, meaning: str, read: Callable[[Plan], float]) -> Family:
    return _single(name, meaning, lambda reading: read(reading.plan) if reading.plan is not None else None)


def _phases(reading: Reading) -> Samples:
    for phase in Phase:
        yield (phase.value,), reading.status["state"] == phase.value


def _generations(reading: Reading) -> Samples:
    for outcome in OUTCOMES:
        yield (outcome,), reading.totals.generations[outcome]


def _spans(reading: Reading) -> Samples:
    if (traces := reading.status["otlp"]) is not None:
        for outcome, count in {"exported": traces["exported"], **traces["dropped"]}.items():
            yield (outcome,), count


def _workers_up(reading: Reading) -> Samples:
    for worker in reading.workers:
        yield (worker.name, worker.node, worker.slice), worker.up


def _worker_restarts(reading: Reading) -> Samples:
    # Each series begins at 0: Prometheus would not count the first restart of a series that begins at 1.
    restarts = reading.totals.restarts
    for name in sorted({*(worker.name for worker in reading.workers), *restarts} - {GATEWAY}):
        yield (name,), restarts[name]


def _node_states(reading: Reading) -> Samples:
    for node in reading.status["nodes"]:
        for state in NODE_STATES:
            yield (node["name"], state), node["state"] == state


def _energies(reading: Reading) -> Samples:
    if (energy := reading.status["energy"]) is not None:
        for gpu, joules in energy["joules"].items():
            node, _, index = gpu.rpartition("/")
            yield (node, index), joules


def _budgets(reading: Reading) -> Samples:
    for graph, plan in reading.plan.graphs.items() if reading.plan is not None else ():
        for task, found in plan.tasks.items():
            yield (graph, task), found.budget_ms / 1000


def _replicas(reading: Reading) -> Samples:
    for graph, plan in reading.plan.graphs.items() if reading.plan is not None else ():
        for task, found in plan.tasks.items():
            counts: dict[tuple[str, str], int] = {}
            for segment in found.segments:
                key = segment.variant, segment.slice
                counts[key] = counts.get(key, 0) + segment.count
            for (variant, kind), count in counts.items():
                yield (graph, task, variant, kind), count


FAMILIES: tuple[Family, ...] = (
    Family(
        "jigsaw_controller_info",
        ("version",),
        "Always 1. The label is the version of the controller.",
        lambda *_: iter([((__version__,), 1)]),
    ),
    _controller("serving", "1 if all graphs are served, else 0.", lambda s: s["serving"]),
    _controller("degraded", "1 if `jigsaw-triton status` says `degraded`, with the reasons.", lambda s: s["degraded"]),
    _controller(
        "journal_incomplete",
        "1 if the journal cannot be written, for example because its disk is full.",
        lambda s: s["journal_incomplete"],
    ),
    _controller("paused", "1 if the measured load causes no change.", lambda s: s["paused"]),
    _controller(
        "emulated", "1 if parts of the deployment are emulated; `status` says which.", lambda s: bool(s["emulated"])
    ),
    _controller(
        "canary",
        "1 while a canary is in progress.",
        lambda s: s["canary"] is not None and s["canary"]["verdict"] is None,
    ),
    _controller("generation", "Number of the generation that serves; 0 if none does.", lambda s: s["generation"]),
    _controller("change_failed", "1 if the last change failed.", lambda s: bool(s["error"])),
    _controller(
        "plan_infeasible",
        "1 if the last change failed because no plan meets the requirements.",
        lambda s: s["error_code"] == InfeasibleError.exit_code,
    ),
    Family("jigsaw_controller_state", ("state",), "1 for the present state of `status`, 0 for others.", _phases),
    Family(
        "jigsaw_controller_generations_total",
        ("outcome",),
        "Generations by outcome: `serves`, `unchanged` (the running plan was the best one) or `failed`.",
        _generations,
    ),
    _single(
        "jigsaw_gateway_up",
        "1 if the gateway runs, 0 while it is missing or being restarted.",
        lambda reading: reading.status["gateway"]["state"] == "ready",
    ),
    _single(
        "jigsaw_gateway_restarts_total", "Restarts of the gateway.", lambda reading: reading.totals.restarts[GATEWAY]
    ),
    Family(
        "jigsaw_worker_up",
        ("worker", "node", "slice"),
        "1 if the worker runs, 0 while it is being restarted or its GPU is lost. The worker of Python steps has no "
        "`node` and `slice`.",
        _workers_up,
    ),
    Family("jigsaw_worker_restarts_total", ("worker",), "Restarts of the worker.", _worker_restarts),
    _of_plan("jigsaw_plan_slices", "Compute slices that the plan uses.", lambda p: p.slices_used),
    _of_plan("jigsaw_plan_gpus", "GPUs that the plan uses.", lambda p: p.gpus_used),
    _of_plan("jigsaw_cluster_slices", "Compute slices of the cluster.", lambda p: p.slices_total),
    _of_graphs("jigsaw_plan_demand_rps", "Requests per second that the plan is made for.", lambda g: g["demand_rps"]),
    _of_graphs("jigsaw_plan_capacity_rps", "Requests per second that the plan can serve.", lambda g: g["capacity_rps"]),
    _of_graphs(
        "jigsaw_available_rps",
        "Requests per second that the servers which can be used now carry: less than the plan while some are lost, "
        "missing, being restarted or do not answer.",
        lambda g: g["available_rps"],
    ),
    _of_graphs(
        "jigsaw_plan_latency_seconds",
        "Latency that the plan predicts, at the percentile of the SLO.",
        lambda g: g["latency_ms"] / 1000,
    ),
    _of_graphs(
        "jigsaw_plan_accuracy_ratio", "Accuracy of the plan, relative to the best variants.", lambda g: g["accuracy"]
    ),
    _of_graphs(
        "jigsaw_plan_overloaded",
        "1 if the load exceeds what the cluster can serve, and the plan covers a part of it.",
        lambda g: g["overloaded"],
    ),
    _of_graphs(
        "jigsaw_plan_standby_serving",
        "1 while standby variants serve. Only for a graph that has some.",
        lambda g: g["standby"]["serving"] if g["standby"] is not None else None,
    ),
    Family("jigsaw_plan_budget_seconds", ("graph", "task"), "Latency budget of the task.", _budgets),
    Family(
        "jigsaw_plan_replicas",
        ("graph", "task", "variant", "slice"),
        "Replicas of the variant on slices of this kind.",
        _replicas,
    ),
    _of_graphs("jigsaw_slo_latency_seconds", "Latency of the SLO.", lambda g: g["slo_latency_ms"] / 1000),
    _of_graphs(
        "jigsaw_slo_objective_ratio",
        "Share of the requests that must meet the latency of the SLO: its percentile, divided by 100.",
        lambda g: g["percentile"] / 100,
    ),
    _of_graphs(
        "jigsaw_slo_accuracy_ratio", "Accuracy of the SLO, relative to the best variants.", lambda g: g["slo_accuracy"]
    ),
    Family(
        "jigsaw_node_state",
        ("node", "state"),
        "1 for the present state of the node, 0 for the others: `ready`, `cordoned`, `agent away`, `lost`.",
        _node_states,
    ),
    _of_nodes("jigsaw_node_gpus", "GPUs of the node.", lambda n: sum(n["gpus"].values())),
    _of_nodes("jigsaw_node_gpus_lost", "GPUs of the node that are lost.", lambda n: len(n["lost"])),
    Family(
        "jigsaw_gpu_energy_joules_total",
        ("node", "gpu"),
        "Energy that the GPU has consumed since its driver was loaded, with all MIG instances on it. Only where NVML "
        "counts it.",
        _energies,
    ),
    Family(
        "jigsaw_spans_total",
        ("outcome",),
        "Spans of traces: `exported`, or dropped because too many waited (`full`), the receiver could not be reached "
        "for a minute (`unreachable`) or did not take them (`refused`). Only while traces are exported; starts at 0 "
        "with each process that exports them.",
        _spans,
    ),
)
"""All metrics, in the order in which they are written."""
