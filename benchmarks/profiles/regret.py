"""Slices of plans that are made with fitted profiles, over those of plans with complete ones.

Each reference graph is planned at each SLO, once with the complete A100 table and once with a sparse one that is filled
by the fitted latency model. The servers of both plans are simulated with the complete table.
"""

from dataclasses import dataclass, replace

import numpy as np

from benchmarks import a100, problems
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from benchmarks.profiles.sparse import POINTS, sparse
from jigsaw_triton.evaluation.simulator.arrivals import poisson
from jigsaw_triton.evaluation.simulator.simulate import simulate, stations
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import make_plan
from jigsaw_triton.profiles.filling import QUANTILE, fitted_rows
from jigsaw_triton.profiles.fit import fit_latency
from jigsaw_triton.profiles.table import ProfileTable

SLOS_MS = (150.0, 200.0, 300.0)
GPUS = 8
DEMAND_RPS = {name: problems.A100_RPS_PER_GPU[name] * GPUS * 2 / 3 for name in a100.NAMES}
"""Demand of each graph: about half of what the GPUs carry, so that no plan is limited by them."""

PLAN_LIMIT_S = 30.0
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


def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Measures all figures."""
    if not a100.TABLE.exists():
        progress(f"no figures of plans: {a100.TABLE} is missing")
        return []
    pairs = [(name, slo_ms) for name in a100.NAMES for slo_ms in SLOS_MS][: max(2, effort.count(9))]
    complete = {name: a100.a100_table(a100.reference_graph(name)) for name in {name for name, _ in pairs}}
    filled = {name: filled_table(table) for name, table in complete.items()}
    limit_s, requests = effort.seconds(PLAN_LIMIT_S, least_s=1.0), max(1000, effort.count(REQUESTS))
    whole, fitted = [], []
    for name, slo_ms in pairs:
        problem = _problem(name, slo_ms, complete[name])
        whole.append(_held(problem, complete[name], limit_s, requests))
        fitted.append(_held(replace(problem, profiles={name: filled[name]}), complete[name], limit_s, requests))
        progress(f"{name} {slo_ms:g} ms: complete {whole[-1]}, fitted {fitted[-1]}")
    percentile = a100.reference_graph(pairs[0][0]).slo.percentile / 100
    slices = [sum(held.slices for held in plans) for plans in (fitted, whole)]
    what = (
        f"{len(pairs)} pairs of graph and SLO, {POINTS} measured rows a model, the rest fitted at the "
        f"{QUANTILE:.0%} quantile; {slices[0]} slices over {slices[1]}"
    )
    broken, base = (sum(held.within < percentile for held in plans) for plans in (fitted, whole))
    judged = (
        f"plans with less than {percentile:.0%} of {requests} simulated requests within the SLO; {what}; baseline: "
        "plans from complete profiles"
    )
    return [
        figure("profiles.plan_regret", slices[0] / slices[1] - 1, "share", what, at_most=0.03),
        figure("profiles.plan_regret.broken", broken, "plans", judged, at_most=0, baseline=base),
    ]


def filled_table(table: ProfileTable) -> ProfileTable:
    """Returns the sparse rows of a complete table, and fitted rows for its other configurations."""
    measured = sparse(table.rows())
    rooms = {(a100.BOARD, kind): float(p.memory_mib or 0) for kind, p in board(a100.BOARD).profiles.items()}
    fitted = fitted_rows(ProfileTable(measured), fit_latency(measured), [row.key for row in table.rows()], rooms=rooms)
    return ProfileTable([*measured, *fitted])


def _problem(name: str, slo_ms: float, table: ProfileTable) -> Problem:
    graph = a100.reference_graph(name)
    graph = replace(graph, slo=replace(graph.slo, latency_ms=slo_ms))
    return Problem((Workload(graph, DEMAND_RPS[name]),), problems.cluster(GPUS), {name: table})


def _held(problem: Problem, complete: ProfileTable, limit_s: float, requests: int) -> Held:
    """Plans the problem, and simulates the plan with the complete table."""
    (workload,) = problem.workloads
    graph = workload.graph
    plan = make_plan(problem, Options(time_limit_s=limit_s))
    arrivals_s = poisson(workload.demand_rps, requests, np.random.default_rng(SEED))
    simulated = simulate(graph, stations(graph.name, plan.gpus, complete), arrivals_s, seed=SEED)
    return Held(plan.slices_used, simulated.attainment(graph.slo.latency_ms), plan.solver.status)
