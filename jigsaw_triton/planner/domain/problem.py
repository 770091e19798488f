"""The problem and the options of planning, and their validation."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import Board, Cluster
from jigsaw_triton.graph.model import TaskGraph, Variant, Workload
from jigsaw_triton.graph.order import topological_order
from jigsaw_triton.planner.domain.accuracy import with_pairs
from jigsaw_triton.planner.domain.costs import Costs, board_costs
from jigsaw_triton.planner.domain.features import FEATURES, canonical
from jigsaw_triton.planner.domain.plan import Plan, PlanCost, PlannedGpu
from jigsaw_triton.planner.solver.program import SolverName
from jigsaw_triton.profiles.table import ProfileTable

MIN_DEMAND_RPS = 1e-9
"""Smallest demand accepted, in requests a second. A convention: a smaller number is a typing error."""

MAX_DEMAND_RPS = 1e9
"""Largest demand accepted, in requests a second. A convention: no cluster serves more."""

MAX_ROWS = 1e6
"""Largest number of rows accepted for one request or call. A convention."""

Formulation = Literal["exact", "paper"]
FORMULATIONS: tuple[Formulation, ...] = ("exact", "paper")

LatencyModel = Literal["queue", "2p95"]
LATENCY_MODELS: tuple[LatencyModel, ...] = ("queue", "2p95")

Objective = Literal["slices", "accuracy"]
OBJECTIVES: tuple[Objective, ...] = ("slices", "accuracy")

StandbyMode = Literal["auto", "off"]
STANDBY_MODES: tuple[StandbyMode, ...] = ("auto", "off")

LATENCY_MODEL_OF: Mapping[Formulation, LatencyModel] = {"exact": "queue", "paper": "2p95"}
"""Formulation -> its default latency model; the paper's formulation supports no other."""

LOADS = (0.3, 0.5, 0.65, 0.75, 0.85, 0.92)
"""Utilisations at which a replica may be planned with the latency model `queue`, as shares of its profiled throughput.
A convention: a grid that is finer where latency rises faster."""

ReplicaRange = tuple[int, float]
"""Range of the number of replicas of a task: least and greatest, both included."""

REPLICA_RANGES: tuple[ReplicaRange, ...] = ((1, 4), (4, 16), (16, math.inf))
"""Ranges of the number of replicas for which the latency model `queue` predicts latencies. A convention. The latency in
a range is that of its slower end; `MAX_SERVERS` instances stand for an infinite end."""

MAX_SERVERS = 64
"""Largest number of instances of one queue that the latency model distinguishes; more count as this many. A
convention."""

SHARED_LOAD = 0.2
"""Largest utilisation of a shared slice, chosen by simulation; see `planner.candidates.sharing`."""


def uses_pairs(features: str, formulation: str) -> bool:
    """Returns True if pairs of variants that were measured together replace products of accuracies.

    The baselines know only tasks: each chooses its variants within its own part of the SLO, or by the paper's products.
    """
    return formulation == "exact" and {"A", "T"} <= set(features)


@dataclass(frozen=True, slots=True)
class Multiplicities:
    """Measured multiplicities of one graph; any that is absent keeps the graph's own planning estimate.

    Attributes:
        rows: Graph input -> rows for each request.
        yields: (task, variant, output) -> rows for each call.
        probability: Task with a condition -> probability that it runs, in (0, 1].
    """

    rows: Mapping[str, float] = field(default_factory=dict)
    yields: Mapping[tuple[str, str, str], float] = field(default_factory=dict)
    probability: Mapping[str, float] = field(default_factory=dict)

    def applied_to(self, graph: TaskGraph) -> TaskGraph:
        """Returns the graph with these multiplicities in place of its estimates."""

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
    """A planning problem.

    Attributes:
        workloads: Graphs, with distinct names, and their demands.
        cluster: Cluster to run them on.
        profiles: Graph name -> profiles of its variants.
        running: Plan that runs now; of equally good plans, the one that keeps most of it is chosen.
        multiplicities: Graph name -> measured multiplicities.
        unloaded: Graph name -> profiles that processor time follows from, if `profiles` are those of slices that are
            slow. On a full machine a batch takes longer, but no more processor time.
        costs: Costs of the boards; None for those that follow from the cluster and the profiles.
    """

    workloads: tuple[Workload, ...]
    cluster: Cluster
    profiles: Mapping[str, ProfileTable]
    running: Plan | None = None
    multiplicities: Mapping[str, Multiplicities] = field(default_factory=dict)
    unloaded: Mapping[str, ProfileTable] = field(default_factory=dict)
    costs: Costs | None = None

    @property
    def averages(self) -> bool:
        """True if the accuracy SLO of any graph is a mean."""
        return any(w.graph.slo.accuracy_mode == "mean" for w in self.workloads)

    @property
    def boards(self) -> tuple[Board, ...]:
        """Distinct models of GPU in the cluster, sorted by name."""
        return tuple(sorted({g.board.name: g.board for g in self.cluster.gpus}.values(), key=lambda b: b.name))

    @property
    def survive(self) -> float:
        """Share of the demand that the loss of any failure domain must leave; 0 for none."""
        return self.cluster.survive.share if self.cluster.survive is not None else 0.0

    def unprotected(self) -> "Problem":
        """Returns the problem of a plan that need not survive any loss."""
        return replace(self, cluster=replace(self.cluster, survive=None))

    @property
    def board_costs(self) -> Costs:
        """Costs of the boards: those given, or else those that follow from the cluster and the profiles."""
        return self.costs or board_costs(self.cluster, self.profiles)

    def cost_of(self, gpus: Iterable[PlannedGpu]) -> PlanCost | None:
        """Returns the cost of a plan's GPUs; None if each compute slice counts alike."""
        return self.board_costs.of(gpus, self.cluster)

    def prepared(self, options: "Options | None" = None) -> "Problem":
        """Returns the problem checked, in canonical order, and with what was measured applied to the graphs.

        Args:
            options: Options of planning, if accuracies matter.

        Raises:
            InputError: A demand, a multiplicity or the cluster is invalid.
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
            pairs = options is not None and uses_pairs(options.features, options.formulation)
            graph = with_pairs(graph) if pairs else replace(graph, combinations=())
            workloads.append(Workload(graph, float(workload.demand_rps)))
        cluster = replace(self.cluster, gpus=tuple(sorted(self.cluster.gpus, key=lambda g: g.id)))
        costs = self.board_costs
        return replace(
            self,
            workloads=tuple(workloads),
            cluster=costs.applied_to(cluster),
            multiplicities={},
            costs=costs,
        )


@dataclass(frozen=True, slots=True)
class Options:
    """Options of planning.

    Attributes:
        time_limit_s: Seconds for solving; the best plan found by then is returned, marked as unproven.
        features: Letters of features, possibly none; see `planner.domain.features`. Without A each task uses its most
            accurate variant, without M each replica gets a whole GPU, without P it has one instance, without T each
            task gets an even part of the SLO. S stands for M and P.
        formulation: `exact` optimises GPU layouts together with everything else. `paper` is the baseline, after what
            is known of JigsawServe (arXiv 2603.08797): at most four instances, the full throughput of each replica,
            slices without layouts, and a greedy placement afterwards (`planner.placement.greedy`).
        latency_model: `queue` predicts the SLO's percentile from the replicas' utilisation, one of `LOADS`, and their
            number, in one of `REPLICA_RANGES`. `2p95` is twice the 95th percentile at any utilisation, and the only
            model of the paper's formulation. See `planner.latency.latency`.
        gap: Relative gap in the objective at which a plan is accepted; 0 for the proven optimum.
        solver: Solver to try first; the other one takes over if it fails.
        utilisation: Largest share of a replica's profiled throughput that `2p95` plans with. That model allows for one
            batch of waiting, which holds only with some headroom: at 0.8, a queue with Poisson arrivals and one server
            of constant service time waits two service times on average, and above that waiting grows without bound.
        share: True if models may share a slice and take turns on it; see `planner.candidates.sharing`.
        change_price: Compute slices that a plan must save for each running MIG instance that it does not keep in place
            with the same models. Of plans of equal cost, the one that changes least is chosen, before GPUs and accuracy
            count. With 0, changes are free and only decide between otherwise equal plans. With the objective
            `accuracy` it is the accuracy that must be gained by each compute slice and by each such change, as a share:
            0.001 for a tenth of a percent. Where boards have costs, a slice of the price costs as much as the cluster's
            slices on average.
        objective: `slices` for the least cost (`planner.domain.costs`; the fewest compute slices if all count alike),
            then the least cost of the GPUs in use, then the highest accuracy. `accuracy` for the highest accuracy that
            the cluster carries at the demand, then the least cost.
        standby: `auto` loads lighter variants beside those that serve, where they fit; `off` does not. See
            `planner.standby`.
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
    objective: Objective = "slices"
    standby: StandbyMode = "auto"

    def checked(self) -> "Options":
        """Returns these options, validated, with the features in canonical form.

        Raises:
            InputError: An option has an invalid value, or two options contradict each other.
        """
        features = canonical(self.features)
        if self.formulation not in FORMULATIONS:
            raise InputError(f"formulation {self.formulation!r} is unknown", hint=f"use {' or '.join(FORMULATIONS)}")
        if self.latency_model not in LATENCY_MODELS:
            raise InputError(
                f"latency model {self.latency_model!r} is unknown", hint=f"use {' or '.join(LATENCY_MODELS)}"
            )
        if self.formulation == "paper" and self.latency_model != "2p95":
            raise InputError(
                "the paper's formulation has its own latency model, 2p95",
                hint="use --latency-model 2p95 or --formulation exact",
            )
        if self.formulation == "paper" and self.share:
            raise InputError("the paper's formulation gives each model its own slice", hint="omit --share")
        if not (math.isfinite(self.change_price) and self.change_price >= 0):
            raise InputError(f"the price of a change, {self.change_price}, is invalid", hint="give 0 or more")
        if self.change_price and (self.share or self.formulation == "paper"):
            other = "--share" if self.share else "the paper's formulation"
            raise InputError(f"changes have no price with {other}", hint="omit one of the two")
        if self.objective not in OBJECTIVES:
            raise InputError(f"objective {self.objective!r} is unknown", hint=f"use {' or '.join(OBJECTIVES)}")
        if self.objective == "accuracy" and (self.share or self.formulation == "paper"):
            other = "--share" if self.share else "the paper's formulation"
            raise InputError(f"the objective `accuracy` does not work with {other}", hint="omit one of the two")
        if self.standby not in STANDBY_MODES:
            raise InputError(f"standby {self.standby!r} is unknown", hint=f"use {' or '.join(STANDBY_MODES)}")
        if self.solver not in ("highs", "cbc"):
            raise InputError(f"solver {self.solver!r} is unknown", hint="use highs or cbc")
        if not (math.isfinite(self.time_limit_s) and self.time_limit_s > 0):
            raise InputError(f"a time limit of {self.time_limit_s} s leaves no time to solve", hint="the default is 10")
        if not 0 <= self.gap < 1:
            raise InputError(
                f"a gap of {self.gap} is not in [0, 1)", hint="0.005 allows 0.5% more slices than the optimum"
            )
        if not 0 < self.utilisation <= 1:
            raise InputError(f"utilisation {self.utilisation} is not in (0, 1]", hint="the default is 0.8")
        return replace(self, features=features)

    @property
    def ideal_packing(self) -> bool:
        """True if only the number of compute slices is limited, whatever layouts the GPUs allow."""
        return self.formulation == "paper"

    @property
    def usable(self) -> float:
        """Largest utilisation that these options plan with, as a share of a replica's profiled throughput."""
        if self.formulation == "paper":
            return 1.0
        return LOADS[-1] if self.latency_model == "queue" else self.utilisation


def with_demand_scaled(problem: Problem, growing: Collection[str], scale: float) -> Problem:
    """Returns the problem with the demands of the `growing` graphs multiplied by a scale."""
    workloads = (
        replace(w, demand_rps=w.demand_rps * scale) if w.graph.name in growing else w for w in problem.workloads
    )
    return replace(problem, workloads=tuple(workloads))


def on_floors(problem: Problem) -> Problem:
    """Returns the problem with every accuracy SLO as a floor, which implies the same SLO as a mean."""
    floors = (
        replace(w, graph=replace(w.graph, slo=replace(w.graph.slo, accuracy_mode="floor"))) for w in problem.workloads
    )
    return replace(problem, workloads=tuple(floors))


def _check_workloads(workloads: tuple[Workload, ...]) -> None:
    if not workloads:
        raise InputError("there is no graph to plan for", hint="name at least one graph")
    for name, times in sorted(Counter(w.graph.name for w in workloads).items()):
        if times > 1:
            raise InputError(f"the graph {name} is given {times} times", hint="name each graph once")
    for workload in workloads:
        demand = workload.demand_rps
        if not MIN_DEMAND_RPS <= demand <= MAX_DEMAND_RPS:
            raise InputError(
                f"a demand of {demand} requests/s cannot be planned for",
                where=workload.graph.name,
                hint=f"give a number from {MIN_DEMAND_RPS:g} to {MAX_DEMAND_RPS:g}",
            )


def _check_cluster(cluster: Cluster) -> None:
    if not cluster.gpus:
        raise InputError("the cluster has no GPUs", hint="list them in cluster.yaml or with --gpus")
    for gpu_id, times in sorted(Counter(g.id for g in cluster.gpus).items()):
        if times > 1:
            raise InputError(f"the cluster names GPU {gpu_id} {times} times", hint="name each GPU once")
    first = {g.board.name: g.board for g in reversed(cluster.gpus)}
    costs = {g.board.name: g.cost for g in cluster.gpus}
    for gpu in cluster.gpus:
        if gpu.board != first[gpu.board.name]:
            hint = "install the same driver on all machines"
            raise InputError(
                f"GPUs of the model {gpu.board.name} differ in their MIG profiles", where=str(gpu.id), hint=hint
            )
        if (gpu.cost is None) != (cluster.gpus[0].cost is None):
            raise InputError("only some GPUs of the cluster have a cost", hint="give it for all of them or for none")
        if gpu.cost != costs[gpu.board.name]:
            raise InputError(
                f"GPUs of the model {gpu.board.name} have different costs", where=str(gpu.id), hint="give all the same"
            )
        if reason := fits(gpu.board, gpu.foreign):
            hint = "list the instances as `nvidia-smi mig -lgi` prints them"
            raise InputError(f"the foreign MIG instances do not fit the GPU: {reason}", where=str(gpu.id), hint=hint)


def _check_multiplicities(graph: TaskGraph) -> None:
    def check(value: float, what: str) -> None:
        if not 0 <= value <= MAX_ROWS:
            raise InputError(
                f"{what} are {value}, which is out of range",
                where=graph.name,
                hint=f"give a number from 0 to {MAX_ROWS:.0f}",
            )

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
