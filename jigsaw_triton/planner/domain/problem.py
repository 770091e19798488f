"""What the planner is asked: the problem, the options, and what is wrong with either."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import Board, Cluster
from jigsaw_triton.graph.model import TaskGraph, Variant, Workload
from jigsaw_triton.graph.order import topological_order
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.solver.program import SolverName
from jigsaw_triton.profiles.table import ProfileTable

LEAST_DEMAND_RPS = 1e-9
MAX_DEMAND_RPS = 1e9
"""No cluster serves more, and nobody asks for less: such a number is a slip of the pen."""

MAX_ROWS = 1e6
"""Rows of one request that a plan may count on."""

FEATURES = "AST"
"""Accuracy scaling, spatial partitioning, task-graph-informed budgeting."""

Formulation = Literal["exact", "paper"]
FORMULATIONS: tuple[Formulation, ...] = ("exact", "paper")

LatencyModel = Literal["queue", "2p95"]
LATENCY_MODELS: tuple[LatencyModel, ...] = ("queue", "2p95")

LATENCY_MODEL_OF: Mapping[Formulation, LatencyModel] = {"exact": "queue", "paper": "2p95"}
"""The latency model of who asks for none; the paper's formulation knows no other."""

LOADS = (0.3, 0.5, 0.65, 0.75, 0.85, 0.92)
"""Shares of a replica's profiled throughput that it may be planned to be used by, with the latency model `queue`."""

Replicas = tuple[int, float]
"""Numbers of replicas of a task, from and up to."""

AMONG: tuple[Replicas, ...] = ((1, 4), (4, 16), (16, math.inf))
"""Numbers of replicas that a latency under load holds for, with the latency model `queue`. Each is planned for at the
slower of its ends, for which many stand in for those without end."""

MOST_SERVERS = 64
"""Instances of one queue that are told apart from more of them."""

SHARED_LOAD = 0.2
"""The largest load of a slice that is shared; see `planner.candidates.sharing`."""


@dataclass(frozen=True, slots=True)
class Multiplicities:
    """Measured multiplicities of one graph; what is absent keeps the graph's own planning estimate.

    Attributes:
        rows: Graph input -> rows a request.
        yields: (task, variant, output) -> rows a call.
        probability: Task with a condition -> how often it runs, in (0, 1].
    """

    rows: Mapping[str, float] = field(default_factory=dict)
    yields: Mapping[tuple[str, str, str], float] = field(default_factory=dict)
    probability: Mapping[str, float] = field(default_factory=dict)

    def applied_to(self, graph: TaskGraph) -> TaskGraph:
        """The graph with these in place of its estimates."""

        def measured(task: str, variant: Variant) -> Variant:
            yields = {out: self.yields.get((task, variant.name, out), rows) for out, rows in variant.yields.items()}
            return replace(variant, yields=yields)

        tasks = {
            name: replace(
                task,
                variants=tuple(measured(name, variant) for variant in task.variants),
                when=task.when and replace(task.when, probability=self.probability.get(name, task.when.probability)),
            )
            for name, task in graph.tasks.items()
        }
        inputs = {name: replace(value, rows=self.rows.get(name, value.rows)) for name, value in graph.inputs.items()}
        return replace(graph, tasks=tasks, inputs=inputs)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be planned.

    Attributes:
        workloads: Graphs of distinct names and their demands.
        cluster: Where they are to run.
        profiles: Graph name -> what is known of its variants' speed.
        running: The plan that runs now: among plans of equal merit the one that keeps most of it is taken.
        multiplicities: Graph name -> what was measured of its fan-out.
    """

    workloads: tuple[Workload, ...]
    cluster: Cluster
    profiles: Mapping[str, ProfileTable]
    running: Plan | None = None
    multiplicities: Mapping[str, Multiplicities] = field(default_factory=dict)

    @property
    def averages(self) -> bool:
        """Whether a graph's accuracy is one of the mean."""
        return any(w.graph.slo.accuracy_mode == "mean" for w in self.workloads)

    @property
    def boards(self) -> tuple[Board, ...]:
        """The distinct models of GPU in the cluster, by name."""
        return tuple(sorted({g.board.name: g.board for g in self.cluster.gpus}.values(), key=lambda b: b.name))

    def prepared(self) -> "Problem":
        """The same problem, checked, with measured multiplicities in the graphs and its parts in a fixed order.

        Raises:
            InputError: A demand, a multiplicity or the cluster makes no sense.
        """
        _check_workloads(self.workloads)
        _check_cluster(self.cluster)
        workloads = []
        for workload in sorted(self.workloads, key=lambda w: w.graph.name):
            graph = self.multiplicities.get(workload.graph.name, Multiplicities()).applied_to(workload.graph)
            _check_multiplicities(graph)
            order = topological_order({name: graph.before(task) for name, task in graph.tasks.items()})
            tasks = {name: graph.tasks[name] for name in order}
            graph = replace(graph, tasks=tasks)
            workloads.append(Workload(graph, float(workload.demand_rps)))
        gpus = tuple(sorted(self.cluster.gpus, key=lambda g: g.id))
        return replace(self, workloads=tuple(workloads), cluster=replace(self.cluster, gpus=gpus), multiplicities={})


@dataclass(frozen=True, slots=True)
class Options:
    """How to plan.

    Attributes:
        time_limit_s: For solving; what was found by then is returned, marked as unproven.
        features: Letters of `FEATURES`; none is a choice, too. Without A each task has its most accurate variant,
            without S each replica a whole GPU and one instance, without T each task an even part of the SLO.
        formulation: `exact`: layouts inside the optimum. `paper`: the baseline after what is known of JigsawServe
            (arXiv 2603.08797): at most four instances, all of a replica's throughput, slices without layouts, and a
            greedy placement of what comes out (`planner.placement.greedy`).
        latency_model: `queue`: the SLO's percentile by how busy the replicas are, one of `LOADS`, and how many, one of
            `AMONG`. `2p95`: twice the 95th percentile, however busy they are; the only one with the paper's
            formulation. See `planner.latency.latency`.
        gap: Relative, in compute slices, at which a plan is good enough; 0 for the proven optimum.
        solver: The first to be tried; the other one takes over where it fails.
        utilisation: Largest share of a replica's profiled throughput that is planned for with `2p95`. That allows for
            one batch of waiting, which holds while a queue is stable with room to spare: at 0.8 a queue of Poisson
            arrivals before one server of constant speed waits two service times on average, and from there on waiting
            grows without bound.
        share: True if models may share a slice and take turns on it; see `planner.candidates.sharing`.
        change_price: Compute slices that a change has to save for each running MIG instance that it does not leave in
            place with what is in it; of plans that come to the same the one that changes least is taken, before GPUs
            and accuracy count. With 0 changes cost nothing, and only plans of equal merit are told apart by them.
    """

    time_limit_s: float = 10.0
    features: str = FEATURES
    formulation: Formulation = "exact"
    latency_model: LatencyModel = "queue"
    gap: float = 0.0
    solver: SolverName = "highs"
    utilisation: float = 0.8
    share: bool = False
    change_price: float = 0.0

    def checked(self) -> "Options":
        """These options, the features in their usual order.

        Raises:
            InputError: One of them is unknown, or known and not in this release.
        """
        unknown = sorted(set(self.features) - set(FEATURES))
        if unknown:
            raise InputError(
                f"features {self.features!r}: {', '.join(unknown)} unknown",
                hint="A accuracy scaling, S spatial partitioning, T task-graph-informed budgeting",
            )
        if self.formulation not in FORMULATIONS:
            raise InputError(f"formulation {self.formulation!r} is unknown", hint=" or ".join(FORMULATIONS))
        if self.latency_model not in LATENCY_MODELS:
            raise InputError(f"latency model {self.latency_model!r} is unknown", hint=" or ".join(LATENCY_MODELS))
        if self.formulation == "paper" and self.latency_model != "2p95":
            raise InputError(
                "the paper's formulation has its own latency model, 2p95", hint="ask for that, or for exact"
            )
        if self.formulation == "paper" and self.share:
            raise InputError("in the paper's formulation each model has a slice of its own", hint="leave out --share")
        if not (math.isfinite(self.change_price) and self.change_price >= 0):
            raise InputError(f"a price of {self.change_price} for a change is none", hint="0 or more compute slices")
        if self.change_price and (self.share or self.formulation == "paper"):
            other = "--share" if self.share else "the paper's formulation"
            raise InputError(f"changes have no price with {other}", hint="leave one of the two out")
        if self.solver not in ("highs", "cbc"):
            raise InputError(f"solver {self.solver!r} is unknown", hint="highs or cbc")
        if not (math.isfinite(self.time_limit_s) and self.time_limit_s > 0):
            raise InputError(f"a time limit of {self.time_limit_s} s leaves nothing to solve in", hint="10 is usual")
        if not 0 <= self.gap < 1:
            raise InputError(f"a gap of {self.gap} is not in [0, 1)", hint="0.005 allows for 0.5% more slices")
        if not 0 < self.utilisation <= 1:
            raise InputError(f"utilisation {self.utilisation} is not in (0, 1]", hint="0.8 is usual")
        return replace(self, features="".join(f for f in FEATURES if f in self.features))

    @property
    def ideal_packing(self) -> bool:
        """Whether slices count, wherever they can lie."""
        return self.formulation == "paper"

    @property
    def usable(self) -> float:
        """Largest share of a replica's profiled throughput that is planned for with these options."""
        if self.formulation == "paper":
            return 1.0
        return LOADS[-1] if self.latency_model == "queue" else self.utilisation


def with_demand_scaled(problem: Problem, growing: Collection[str], scale: float) -> Problem:
    """The problem with the demands of these graphs multiplied by a scale."""
    workloads = (
        replace(w, demand_rps=w.demand_rps * scale) if w.graph.name in growing else w for w in problem.workloads
    )
    return replace(problem, workloads=tuple(workloads))


def on_floors(problem: Problem) -> Problem:
    """The problem with each graph's accuracy kept by each request, which keeps it on average, too."""
    floors = (
        replace(w, graph=replace(w.graph, slo=replace(w.graph.slo, accuracy_mode="floor"))) for w in problem.workloads
    )
    return replace(problem, workloads=tuple(floors))


def _check_workloads(workloads: tuple[Workload, ...]) -> None:
    if not workloads:
        raise InputError("there is no graph to plan for", hint="name at least one")
    for name, times in sorted(Counter(w.graph.name for w in workloads).items()):
        if times > 1:
            raise InputError(f"the graph {name} is given {times} times", hint="name each graph once")
    for workload in workloads:
        demand = workload.demand_rps
        if not LEAST_DEMAND_RPS <= demand <= MAX_DEMAND_RPS:
            raise InputError(
                f"a demand of {demand} requests/s cannot be planned for",
                where=workload.graph.name,
                hint=f"give a number from {LEAST_DEMAND_RPS:g} to {MAX_DEMAND_RPS:g}",
            )


def _check_cluster(cluster: Cluster) -> None:
    if not cluster.gpus:
        raise InputError("the cluster has no GPUs", hint="give some in cluster.yaml or by --gpus")
    for gpu_id, times in sorted(Counter(g.id for g in cluster.gpus).items()):
        if times > 1:
            raise InputError(f"the cluster names GPU {gpu_id} {times} times", hint="name each GPU once")
    first = {g.board.name: g.board for g in reversed(cluster.gpus)}
    for gpu in cluster.gpus:
        if gpu.board != first[gpu.board.name]:
            raise InputError(f"GPUs of one model, {gpu.board.name}, differ in their MIG profiles", where=str(gpu.id))
        if reason := fits(gpu.board, gpu.foreign):
            raise InputError(f"others' MIG instances cannot be there: {reason}", where=str(gpu.id))


def _check_multiplicities(graph: TaskGraph) -> None:
    def check(value: float, what: str) -> None:
        if not 0 <= value <= MAX_ROWS:
            raise InputError(f"{what} are {value}", where=graph.name, hint=f"give a number from 0 to {MAX_ROWS:.0f}")

    for name, graph_input in graph.inputs.items():
        check(graph_input.rows, f"the rows of input {name}")
    for task in graph.tasks.values():
        for variant in task.variants:
            for output, rows in variant.yields.items():
                check(rows, f"the yields of {task.name}.{output} ({variant.name})")
        if task.when is not None and not 0 < task.when.probability <= 1:
            raise InputError(
                f"the probability of {task.name} is {task.when.probability}",
                where=graph.name,
                hint="give a number above 0 and up to 1",
            )
