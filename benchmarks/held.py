"""Benchmark of the demand that plans sustain in simulation: the exact formulation relative to the paper's.

Each formulation plans the reference graphs (`benchmarks.a100`) for the largest demand that it can place on four A100s;
the paper's formulation places greedily. The servers of the plan are then simulated under Poisson arrivals. The plan
sustains the largest rate at which 99% of the requests stay within the SLO, whatever demand it was made for.

An idealised case shows how much could be gained at most: no request waits, every batch takes the median time, and
replicas reach all of their profiled throughput.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from statistics import geometric_mean

import numpy as np

from benchmarks import a100, harness, problems
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.evaluation.simulator.arrivals import poisson
from jigsaw_triton.evaluation.simulator.simulate import simulate, stations
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import LATENCY_MODELS, Formulation, LatencyModel, Options, Problem
from jigsaw_triton.planner.search.solve import make_largest_plan
from jigsaw_triton.profiles.table import ProfileTable

GPUS = 4
SLOS_MS = (150.0, 200.0, 300.0)
WITHIN = 0.99
REQUESTS = 20_000
WARM_UP = 0.1
"""Share of the requests at the beginning that are not counted, because a queue starts empty."""

PRECISION = 0.01
"""Relative precision of the sustained rate."""

SEED = 1917
LIMIT_S = 10.0


def capacity_vs_paper(progress: Progress) -> list[Figure]:
    """Measures the ratio of sustained rates for each latency model of the exact formulation."""
    if not a100.TABLE.exists():
        progress("skipped: the A100 table is not beside the checkout")
        return []
    cases = {(name, ms): _problem(name, ms) for name in a100.NAMES for ms in SLOS_MS}
    paper = {key: _held(problem, "paper", "2p95", progress) for key, problem in cases.items()}
    found = []
    for model in LATENCY_MODELS:
        ratios = {key: _held(problem, "exact", model, progress) / paper[key] for key, problem in cases.items()}
        each = ", ".join(f"{name} {ms:g} ms {ratio:.2f}" for (name, ms), ratio in ratios.items())
        note = f"geometric mean of {each}; {REQUESTS} Poisson arrivals each; baseline: geometric mean of requests/s"
        name = "planner.capacity_vs_paper" if model == "queue" else f"planner.capacity_vs_paper.{model}"
        ratio, base = geometric_mean(ratios.values()), geometric_mean(paper.values())
        found.append(figure(name, ratio, "ratio", note, at_least=1.15, baseline=base))
    eased = {key: _without_waiting(problem) / paper[key] for key, problem in cases.items()}
    each = ", ".join(f"{name} {ms:g} ms {ratio:.2f}" for (name, ms), ratio in eased.items())
    note = f"the same ratio for idealised plans, without waiting or spread, at full throughput: {each}"
    return [*found, figure("planner.capacity_vs_paper.no_waiting", geometric_mean(eased.values()), "ratio", note)]


def _problem(name: str, latency_ms: float) -> Problem:
    graph = a100.reference_graph(name)
    graph = replace(graph, slo=replace(graph.slo, latency_ms=latency_ms))
    return Problem((Workload(graph, 100.0),), problems.cluster(GPUS), {name: a100.a100_table(graph)})


def _without_waiting(problem: Problem) -> float:
    """Returns the largest demand if each task took the median time of one batch, at all of the profiled throughput."""
    (workload,) = problem.workloads
    name, slo = workload.graph.name, workload.graph.slo
    # The model takes 2 x p95. With p95 set to the median and the SLO doubled, a task takes one median.
    graph = replace(workload.graph, slo=replace(slo, latency_ms=2 * slo.latency_ms))
    rows = (replace(row, latency_p95_ms=row.latency_p50_ms) for row in problem.profiles[name].rows())
    eased = replace(problem, workloads=(Workload(graph, workload.demand_rps),), profiles={name: ProfileTable(rows)})
    options = Options(time_limit_s=LIMIT_S, latency_model="2p95", utilisation=1.0)
    return make_largest_plan(eased, options).graphs[name].demand_rps


def _held(problem: Problem, formulation: Formulation, model: LatencyModel, progress: Progress) -> float:
    """Returns the largest rate at which enough requests stay within the SLO in simulation."""
    plan = make_largest_plan(problem, Options(time_limit_s=LIMIT_S, formulation=formulation, latency_model=model))
    (workload,) = problem.workloads
    low, high = 0.0, 1.5 * plan.graphs[workload.graph.name].capacity_rps
    while high - low > PRECISION * high:
        rate_rps = (low + high) / 2
        if _attainment(problem, plan, rate_rps) >= WITHIN:
            low = rate_rps
        else:
            high = rate_rps
    planned = plan.graphs[workload.graph.name].demand_rps
    slo = workload.graph.slo
    rates = f"planned {planned:.0f}/s, sustained {low:.0f}/s"
    progress(f"{workload.graph.name} {slo.latency_ms:g} ms, {formulation} {model}: {rates}")
    return low


def _attainment(problem: Problem, plan: Plan, rate_rps: float) -> float:
    (workload,) = problem.workloads
    graph = workload.graph
    arrivals_s = poisson(rate_rps, REQUESTS, np.random.default_rng(SEED))
    simulated = simulate(graph, stations(graph.name, plan.gpus, problem.profiles[graph.name]), arrivals_s, seed=SEED)
    counted = simulated.latency_ms[int(WARM_UP * REQUESTS) :]
    return float((counted <= graph.slo.latency_ms).mean())


def measure(progress: Progress) -> Sequence[Figure]:
    """Measures all figures."""
    return capacity_vs_paper(progress)


if __name__ == "__main__":
    with harness.alarm():
        sys.exit(harness.main("held", measure))
