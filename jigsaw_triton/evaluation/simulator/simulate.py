"""Simulates requests through the servers that a plan assigns to a graph."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.evaluation.simulator.station import Servers, serve
from jigsaw_triton.graph.model import PythonStep, Task, TaskGraph, When
from jigsaw_triton.graph.tensors import TensorRef
from jigsaw_triton.planner.domain.plan import PlannedGpu
from jigsaw_triton.profiles.service import service_times
from jigsaw_triton.profiles.table import ProfileKey, ProfileTable
from jigsaw_triton.runtime import draws

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

Rows = Literal["poisson", "fixed"]
"""Distribution of the number of rows around a variant's mean yield.

`poisson` draws from a Poisson distribution. `fixed` only rounds a fractional mean up or down at random.
"""


@dataclass(frozen=True, slots=True)
class SimulatedTask:
    """Results of a simulation for one task.

    Attributes:
        latency_ms: Latency of each request, from the arrival of the task's inputs to the completion of its last row; 0
            for a request without rows, and infinite for one that was dropped.
        calls: Number of calls of the task by each request.
        utilisation: Share of time that the task's instances were busy.
        batch: Mean batch size.
        shares: Share of calls by variant.
    """

    latency_ms: Array = field(repr=False)
    calls: Counts = field(repr=False)
    utilisation: float
    batch: float
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Simulated:
    """Results of a simulation.

    Attributes:
        latency_ms: Latency of each request, until all tasks of the graph were done; infinite if it was dropped.
        tasks: Results of tasks by name.
    """

    latency_ms: Array = field(repr=False)
    tasks: Mapping[str, SimulatedTask]

    def percentile_ms(self, percentile: float) -> float:
        """Returns a percentile of the requests' latency; `percentile` is in [0, 100]."""
        return float(np.percentile(self.latency_ms, percentile))

    def attainment(self, limit_ms: float) -> float:
        """Returns the share of requests that were done within this time."""
        return float((self.latency_ms <= limit_ms).mean())


Stations = Mapping[str, Sequence[Servers]]
"""Servers of each task, which take items from its queue."""


def stations(graph: str, gpus: Sequence[PlannedGpu], profiles: ProfileTable) -> dict[str, tuple[Servers, ...]]:
    """Returns the servers that a plan's GPUs hold for a graph.

    The simulator ignores that models on a shared slice wait for each other.

    Args:
        graph: Name of the graph.
        gpus: GPUs of the plan.
        profiles: Profiles of the graph, which contain every placed configuration.
    """
    times = service_times(profiles)
    replicas = Counter(
        ProfileKey(gpu.model, m.task, m.variant, placed.placement.slice, m.instances, m.batch)
        for gpu in gpus
        for placed in gpu.layout
        for m in placed.models
        if m.graph == graph
    )
    found: dict[str, tuple[Servers, ...]] = {}
    for key, count in sorted(replicas.items()):
        servers = Servers(key.variant, count * key.instances, times[key])
        found[key.task] = (*found.get(key.task, ()), servers)
    return found


def simulate(
    graph: TaskGraph,
    stations: Stations,
    arrivals_s: Array,
    *,
    seed: int = 0,
    rows: Rows = "poisson",
    drops: bool = False,
) -> Simulated:
    """Simulates requests through a graph.

    Tasks pass on whole tensors, as the steps of a pipeline do: for each request, a task starts with all its rows when
    all its dependencies are done, and is done with its last row. Since requests only move downstream, the tasks are
    simulated one after the other. A Python step takes its planned latency.

    Args:
        graph: Graph to simulate.
        stations: Servers of all tasks.
        arrivals_s: Arrival times of the requests, ascending.
        seed: Seed of the random numbers; equal seeds give equal results.
        rows: Distribution of the numbers of rows.
        drops: True if a request is dropped as soon as it is bound to miss the SLO, as fronts do.
    """
    rngs = np.random.default_rng(seed).spawn(len(graph.tasks) + 1)
    flow = _Flow(graph, arrivals_s, rows, rngs.pop(), _later_s(graph, stations) if drops else None)
    tasks = {}
    for node in graph.in_order():
        if isinstance(node, PythonStep):
            flow.run_step(node)
        else:
            tasks[node.name] = flow.run(node, stations[node.name], rngs.pop(0))
    done_s = np.maximum.reduce([arrivals_s, *flow.done_s.values()])
    return Simulated(1000 * (done_s - arrivals_s), tasks)


def _later_s(graph: TaskGraph, stations: Stations) -> dict[str, float]:
    """Returns, for each task, the longest expected time of the tasks and steps after it, without queueing."""
    later_s = dict.fromkeys([*graph.tasks, *graph.steps], 0.0)
    for node in reversed(list(graph.in_order())):
        if isinstance(node, PythonStep):
            own_s = node.latency_ms / 1000
        else:
            own_s = min(servers.time.median_ms[-1] for servers in stations[node.name]) / 1000
        for before in node.dependencies():
            later_s[before] = max(later_s[before], own_s + later_s[node.name])
    return later_s


def _elapsed_s(ready_s: Array, done_s: Array) -> Array:
    """Returns the times between two arrays of moments; infinite if the second moment never comes."""
    return np.subtract(done_s, ready_s, out=np.full(len(done_s), math.inf), where=np.isfinite(done_s))


class _Flow:
    """Progress of the requests through the graph.

    Args:
        graph: Graph to simulate.
        arrivals_s: Arrival times of the requests.
        rows: Distribution of the numbers of rows.
        rng: Source of randomness for everything but the service times of batches.
        later_s: Task -> expected time of the tasks after it; None if no request is dropped.
    """

    def __init__(
        self,
        graph: TaskGraph,
        arrivals_s: Array,
        rows: Rows,
        rng: np.random.Generator,
        later_s: Mapping[str, float] | None,
    ) -> None:
        self._graph, self._arrivals_s, self._rows, self._rng = graph, arrivals_s, rows, rng
        self._later_s = later_s
        self.done_s: dict[str, Array] = {}
        self._calls: dict[str, Counts] = {}
        self._made: dict[TensorRef, Counts] = {}
        self._level: dict[TensorRef, Array] = {}

    def run(self, task: Task, servers: Sequence[Servers], rng: np.random.Generator) -> SimulatedTask:
        """Simulates all requests through a task whose dependencies have been simulated."""
        ready_s = self._ready_s(task)
        calls = self._calls[task.name] = np.where(np.isfinite(ready_s), self._calls_of(task), 0)
        order = np.argsort(ready_s, kind="stable")
        sizes = calls[order]
        items_s = np.repeat(ready_s[order], sizes)
        deadlines_s = None
        if self._later_s is not None:
            end_s = self._arrivals_s + self._graph.slo.latency_ms / 1000 - self._later_s[task.name]
            deadlines_s = np.repeat(end_s[order], sizes)
        served = serve(items_s, servers, rng, deadlines_s)
        done_s = ready_s.copy()
        some = sizes > 0
        starts = (np.cumsum(sizes) - sizes)[some]
        if len(starts):
            done_s[order[some]] = np.maximum.reduceat(served.finish_s, starts)
        self.done_s[task.name] = done_s
        for output in {over for t in self._graph.tasks.values() if (over := t.for_each) and over.task == task.name}:
            self._made[output] = self._rows_made(task, output, servers, served.by, np.repeat(order, sizes))
        by = np.bincount(served.by, minlength=len(servers)) / max(1, len(items_s))
        shares: Counter[str] = Counter()
        for server, share in zip(servers, by.tolist(), strict=True):
            shares[server.variant] += share
        instances = sum(s.instances for s in servers)
        last_s = served.finish_s.max(initial=0.0, where=np.isfinite(served.finish_s))
        span_s = max(last_s, self._arrivals_s[-1]) - self._arrivals_s[0]
        return SimulatedTask(
            latency_ms=1000 * _elapsed_s(ready_s, done_s),
            calls=calls,
            utilisation=float(served.busy_s.sum() / (instances * span_s)) if span_s > 0 else 0.0,
            batch=len(items_s) / max(1, served.batches),
            shares=dict(shares),
        )

    def run_step(self, step: PythonStep) -> None:
        """Simulates a Python step, whose latency does not depend on the load."""
        self.done_s[step.name] = self._ready_s(step) + step.latency_ms / 1000
        for name, rows in step.yields.items():
            self._made[TensorRef(step.name, name)] = self._draw_rows(np.full(len(self._arrivals_s), rows))

    def _ready_s(self, node: Task | PythonStep) -> Array:
        ready_s: Array = np.maximum.reduce([self._arrivals_s, *(self.done_s[d] for d in sorted(node.dependencies()))])
        return ready_s

    def _calls_of(self, task: Task) -> Counts:
        over, count = task.for_each, len(self._arrivals_s)
        if over is None:
            calls = np.ones(count, np.int64)
        elif over.is_graph_input:
            if over not in self._made:
                self._made[over] = self._draw_rows(np.full(count, self._graph.inputs[over.name].rows))
            calls = self._made[over]
        else:
            calls = self._made[over]
        return calls if task.when is None else np.where(self._met(task.when), calls, 0)

    def _rows_made(
        self, task: Task, output: TensorRef, servers: Sequence[Servers], by: Counts, requests: Counts
    ) -> Counts:
        """Returns the rows of an output by request: the rows that its calls make, or one row per call.

        Args:
            task: Task that makes the output.
            output: Output over which another task iterates.
            servers: Servers of the task.
            by: Index of the servers that did each call.
            requests: Index of the request that made each call.
        """
        if not self._graph.makes_rows(output):
            return self._calls[task.name]
        means = np.array([task.variant(s.variant).yields.get(output.name, 1.0) for s in servers])
        made = np.bincount(requests, weights=self._draw_rows(means[by]), minlength=len(self._arrivals_s))
        return made.astype(np.int64)

    def _draw_rows(self, means: Array) -> Counts:
        if self._rows == "poisson":
            return draws.rows(means, self._rng)
        fixed: Counts = np.floor(means + self._rng.random(len(means))).astype(np.int64)
        return fixed

    def _met(self, when: When) -> NDArray[np.bool_]:
        """Draws, for each request, whether a condition is met.

        Each request draws one level per tensor, so that conditions on one tensor hold together, or exclude each other,
        as thresholds on one value do.
        """
        if when.tensor not in self._level:
            self._level[when.tensor] = self._rng.random(len(self._arrivals_s))
        level = self._level[when.tensor]
        holds: NDArray[np.bool_] = level < when.probability if when.above is not None else level >= 1 - when.probability
        return holds
