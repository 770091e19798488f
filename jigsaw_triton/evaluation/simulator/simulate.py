"""Requests through the servers that a plan gives a graph."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.evaluation.simulator.station import Servers, serve
from jigsaw_triton.graph.model import PythonStep, Task, TaskGraph, TensorRef, When
from jigsaw_triton.planner.domain.plan import PlannedGpu
from jigsaw_triton.profiles.service import service_times
from jigsaw_triton.profiles.table import ProfileKey, ProfileTable

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

Rows = Literal["poisson", "fixed"]
"""How the number of rows varies about what a variant yields: as a Poisson variable, or only as far as that is no whole
number."""


@dataclass(frozen=True, slots=True)
class SimulatedTask:
    """One task in a simulation.

    Attributes:
        latency_ms: Request -> from when its inputs are there until the last of its rows is done; 0 where it has none.
        calls: Request -> how many calls of the task it made.
        utilisation: Share of its instances' time that they were occupied.
        batch: Mean size of the batches.
        shares: Variant -> share of the calls.
    """

    latency_ms: Array = field(repr=False)
    calls: Counts = field(repr=False)
    utilisation: float
    batch: float
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Simulated:
    """What became of the requests.

    Attributes:
        arrivals_s: When they came.
        latency_ms: Until all of the graph's tasks were done.
        tasks: By name.
    """

    arrivals_s: Array = field(repr=False)
    latency_ms: Array = field(repr=False)
    tasks: Mapping[str, SimulatedTask]

    def percentile_ms(self, percentile: float) -> float:
        """Of the requests' latency; `percentile` in [0, 100]."""
        return float(np.percentile(self.latency_ms, percentile))

    def attainment(self, limit_ms: float) -> float:
        """Share of the requests that were done within this time."""
        return float((self.latency_ms <= limit_ms).mean())


Stations = Mapping[str, Sequence[Servers]]
"""Task -> what pulls from its queue."""


def stations(graph: str, gpus: Sequence[PlannedGpu], profiles: ProfileTable) -> dict[str, tuple[Servers, ...]]:
    """The servers that a plan's GPUs hold for a graph.

    Models that share a slice are taken to have it alone: that they wait for each other is not simulated.

    Args:
        graph: Its name.
        gpus: Of the plan.
        profiles: Of the graph, with every placed configuration.
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
    graph: TaskGraph, stations: Stations, arrivals_s: Array, *, seed: int = 0, rows: Rows = "poisson"
) -> Simulated:
    """Runs requests through a graph.

    A task of a request begins when all tasks that it depends on are done for it, with all its rows at once, and is done
    with the last of them: so the steps of a pipeline hand on whole tensors. Since load only moves downstream, the tasks
    are simulated one after the other. A python step takes what is planned for it.

    Args:
        graph: Its tasks in topological order.
        stations: Every task's.
        arrivals_s: Ascending.
        seed: The same gives the same.
        rows: How fan-out varies.
    """
    rngs = np.random.default_rng(seed).spawn(len(graph.tasks) + 1)
    flow = _Flow(graph, arrivals_s, rows, rngs.pop())
    tasks = {}
    for node in graph.in_order():
        if isinstance(node, PythonStep):
            flow.pass_by(node)
        else:
            tasks[node.name] = flow.run(node, stations[node.name], rngs.pop(0))
    done_s = np.maximum.reduce([arrivals_s, *flow.done_s.values()])
    return Simulated(arrivals_s, 1000 * (done_s - arrivals_s), tasks)


class _Flow:
    """How far the requests have come.

    Args:
        graph: That they go through.
        arrivals_s: When they come.
        rows: How fan-out varies.
        rng: Source of randomness for all but the time of batches.
    """

    def __init__(self, graph: TaskGraph, arrivals_s: Array, rows: Rows, rng: np.random.Generator) -> None:
        self._graph, self._arrivals_s, self._rows, self._rng = graph, arrivals_s, rows, rng
        self.done_s: dict[str, Array] = {}
        self._calls: dict[str, Counts] = {}
        self._made: dict[TensorRef, Counts] = {}
        self._level: dict[TensorRef, Array] = {}

    def run(self, task: Task, servers: Sequence[Servers], rng: np.random.Generator) -> SimulatedTask:
        """Runs all requests through a task whose dependencies they have been through."""
        calls = self._calls[task.name] = self._calls_of(task)
        ready_s = self._ready_s(task)
        order = np.argsort(ready_s, kind="stable")
        sizes = calls[order]
        items_s = np.repeat(ready_s[order], sizes)
        served = serve(items_s, servers, rng)
        done_s = ready_s.copy()
        some = sizes > 0
        starts = (np.cumsum(sizes) - sizes)[some]
        if len(starts):
            done_s[order[some]] = np.maximum.reduceat(served.finish_s, starts)
        self.done_s[task.name] = done_s
        for output in {over for t in self._graph.tasks.values() if (over := t.for_each) and over.task == task.name}:
            self._made[output] = self._yield(task, output, servers, served.by, np.repeat(order, sizes))
        by = np.bincount(served.by, minlength=len(servers)) / max(1, len(items_s))
        shares: Counter[str] = Counter()
        for server, share in zip(servers, by.tolist(), strict=True):
            shares[server.variant] += share
        instances = sum(s.instances for s in servers)
        span_s = max(served.finish_s.max(initial=0.0), self._arrivals_s[-1]) - self._arrivals_s[0]
        return SimulatedTask(
            latency_ms=1000 * (done_s - ready_s),
            calls=calls,
            utilisation=float(served.busy_s.sum() / (instances * span_s)) if span_s > 0 else 0.0,
            batch=len(items_s) / max(1, served.batches),
            shares=dict(shares),
        )

    def pass_by(self, step: PythonStep) -> None:
        """A python step takes its time, whatever else there is to do."""
        self.done_s[step.name] = self._ready_s(step) + step.latency_ms / 1000
        for name, rows in step.yields.items():
            self._made[TensorRef(step.name, name)] = self._around(np.full(len(self._arrivals_s), rows))

    def _ready_s(self, node: Task | PythonStep) -> Array:
        ready_s: Array = np.maximum.reduce([self._arrivals_s, *(self.done_s[d] for d in sorted(node.dependencies()))])
        return ready_s

    def _calls_of(self, task: Task) -> Counts:
        over, count = task.for_each, len(self._arrivals_s)
        if over is None:
            calls = np.ones(count, np.int64)
        elif over.is_graph_input:
            if over not in self._made:
                self._made[over] = self._around(np.full(count, self._graph.inputs[over.name].rows))
            calls = self._made[over]
        else:
            calls = self._made[over]
        return calls if task.when is None else np.where(self._holds(task.when), calls, 0)

    def _yield(self, task: Task, output: TensorRef, servers: Sequence[Servers], by: Counts, requests: Counts) -> Counts:
        """Rows of an output by request: those that each of its calls makes, or one for each of them.

        Args:
            task: That makes it.
            output: Over which another iterates.
            servers: Of the task.
            by: Call -> which of them did it.
            requests: Call -> which request it was for.
        """
        if not self._graph.makes_rows(output):
            return self._calls[task.name]
        means = np.array([task.variant(s.variant).yields.get(output.name, 1.0) for s in servers])
        made = np.bincount(requests, weights=self._around(means[by]), minlength=len(self._arrivals_s))
        return made.astype(np.int64)

    def _around(self, means: Array) -> Counts:
        varying = (
            self._rng.poisson(means) if self._rows == "poisson" else np.floor(means + self._rng.random(len(means)))
        )
        rows: Counts = varying.astype(np.int64)
        return rows

    def _holds(self, when: When) -> NDArray[np.bool_]:
        """One draw a request and tensor: thresholds on one tensor are crossed together, or by contraries."""
        if when.tensor not in self._level:
            self._level[when.tensor] = self._rng.random(len(self._arrivals_s))
        level = self._level[when.tensor]
        holds: NDArray[np.bool_] = level < when.probability if when.above is not None else level >= 1 - when.probability
        return holds
