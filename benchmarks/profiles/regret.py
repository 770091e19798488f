"""Slices of plans that are made with sparse profiles, over those of plans with complete ones.

Each reference graph is planned at each SLO, with the complete A100 table and with a sparse one that the fitted latency
model fills. Of each model some rows are measured first. An optimistic plan is made, with a low quantile of the
predictions; the configurations that it uses are measured, the model is fitted again, and so on, until such a plan rests
on measured rows or its models have their number of measured rows. The last plan is made with the usual quantile. The
servers of all plans are simulated with the complete table.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from benchmarks import a100, problems
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from benchmarks.profiles.sparse import POINTS, filled, measured_too, sparse
from jigsaw_triton.evaluation.simulator.arrivals import poisson
from jigsaw_triton.evaluation.simulator.simulate import simulate, stations
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import make_plan
from jigsaw_triton.profiles.filling import QUANTILE
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable

SLOS_MS = (150.0, 200.0, 300.0)
GPUS = 8
DEMAND_RPS = {name: problems.A100_RPS_PER_GPU[name] * GPUS * 2 / 3 for name in a100.NAMES}
"""Demand of each graph: about half of what the GPUs carry, so that no plan is limited by them."""

FIRST_POINTS = 8
"""Number of rows of each model that are measured before the first plan."""

EXPLORED_QUANTILE = 1 - QUANTILE
"""Quantile of the predictions for optimistic plans, which use what may be better than it seems."""

PLAN_LIMIT_S = 20.0
EXPLORING_SHARE = 0.25
"""Share of that time for optimistic plans, which need not be optimal."""

REQUESTS = 40_000
SEED = 1917


@dataclass(frozen=True, slots=True)
class Held:
    """A plan, judged by the complete table.

    Attributes:
        slices: Compute slices of the plan.
        within: Share of the requests that its servers answer within the SLO in simulation.
        status: Status of the solver; only `optimal` plans have certainly the fewest slices.
    """

    slices: int
    within: float
    status: str


@dataclass(frozen=True, slots=True)
class Case:
    """A graph at one SLO.

    Attributes:
        problem: Problem with the complete table.
        limit_s: Seconds for each plan.
        requests: Number of simulated requests.
    """

    problem: Problem
    limit_s: float
    requests: int

    @property
    def complete(self) -> ProfileTable:
        """Complete table of the graph."""
        (table,) = self.problem.profiles.values()
        return table

    def plan(self, table: ProfileTable, share: float = 1.0) -> Plan:
        """Plans with a table, within a share of the time limit."""
        (name,) = self.problem.profiles
        return make_plan(replace(self.problem, profiles={name: table}), Options(time_limit_s=share * self.limit_s))

    def plan_sparsely(self, measured: list[ProfileRow]) -> Plan:
        """Measures what optimistic plans use, and plans with the filled rows."""
        while True:
            plan = self.plan(filled(measured, self.complete, EXPLORED_QUANTILE), EXPLORING_SHARE)
            more = measured_too(measured, _used(plan), self.complete)
            if len(more) == len(measured):
                return self.plan(filled(measured, self.complete))
            measured = more

    def held(self, plan: Plan) -> Held:
        """Simulates the servers of a plan with the complete table."""
        (workload,) = self.problem.workloads
        graph = workload.graph
        arrivals_s = poisson(workload.demand_rps, self.requests, np.random.default_rng(SEED))
        simulated = simulate(graph, stations(graph.name, plan.gpus, self.complete), arrivals_s, seed=SEED)
        return Held(plan.slices_used, simulated.attainment(graph.slo.latency_ms), plan.solver.status)


def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Measures all figures."""
    if not a100.TABLE.exists():
        progress(f"no figures of plans: {a100.TABLE} is missing")
        return []
    names = a100.NAMES[: effort.count(len(a100.NAMES))]
    tables = {name: a100.a100_table(a100.reference_graph(name)) for name in names}
    # A smoke run makes one optimistic plan, which leaves one more row to measure.
    first_points = FIRST_POINTS if effort.load_share == 1 else POINTS - 1
    first, designed = ({n: sparse(t.rows(), p) for n, t in tables.items()} for p in (first_points, POINTS))
    limit_s, requests = effort.seconds(PLAN_LIMIT_S, least_s=1.0), max(1000, effort.count(REQUESTS))
    found: list[tuple[Held, Held, Held]] = []
    fewest: dict[str, int] = {}
    for name, slo_ms in [(name, slo_ms) for name in names for slo_ms in SLOS_MS[: effort.count(len(SLOS_MS))]]:
        case = Case(_problem(name, slo_ms, tables[name]), limit_s, requests)
        plans = (
            case.plan(case.complete),
            case.plan_sparsely(first[name]),
            case.plan(filled(designed[name], case.complete)),
        )
        whole, sparsely, by_design = (case.held(plan) for plan in plans)
        # A plan for a tighter SLO meets this one too, even if the solver found no better one in time.
        fewest[name] = min(whole.slices, fewest.get(name, whole.slices))
        whole = replace(whole, slices=fewest[name])
        found.append((whole, sparsely, by_design))
        progress(f"{name} {slo_ms:g} ms: complete {whole}, sparse {sparsely}, by design alone {by_design}")
    return _figures(found, requests)


def _figures(found: list[tuple[Held, Held, Held]], requests: int) -> list[Figure]:
    whole, sparsely, by_design = (sum(held.slices for held in plans) for plans in zip(*found, strict=True))
    proven = sum(held.status == "optimal" for plans in found for held in plans)
    what = (
        f"{len(found)} pairs of graph and SLO; {FIRST_POINTS} measured rows a model and up to {POINTS} with those that "
        f"optimistic plans use, the rest fitted at the {QUANTILE:.0%} quantile"
    )
    note = (
        f"{what}: {sparsely} slices over {whole}; {proven} of {3 * len(found)} plans proven optimal; baseline: "
        f"{POINTS} rows a model measured by design alone, {by_design} slices"
    )
    within = a100.reference_graph(a100.NAMES[0]).slo.percentile / 100
    broken, base = (sum(plans[i].within < within for plans in found) for i in (1, 0))
    judged = (
        f"plans with less than {within:.0%} of {requests} simulated requests within the SLO, {what}; baseline: plans "
        "from complete profiles"
    )
    regret, base_regret = sparsely / whole - 1, by_design / whole - 1
    return [
        figure("profiles.plan_regret", regret, "share", note, at_most=0.03, baseline=base_regret),
        figure("profiles.plan_regret.broken", broken, "plans", judged, at_most=0, baseline=base),
    ]


def _problem(name: str, slo_ms: float, table: ProfileTable) -> Problem:
    graph = a100.reference_graph(name)
    graph = replace(graph, slo=replace(graph.slo, latency_ms=slo_ms))
    return Problem((Workload(graph, DEMAND_RPS[name]),), problems.cluster(GPUS), {name: table})


def _used(plan: Plan) -> list[ProfileKey]:
    """Returns the configurations of a plan, those with the most replicas first."""
    counts = Counter(
        ProfileKey(gpu.model, m.task, m.variant, placed.placement.slice, m.instances, m.batch)
        for gpu in plan.gpus
        for placed in gpu.layout
        for m in placed.models
    )
    return [key for key, _ in counts.most_common()]
