"""Benchmark of the queueing model: its error against simulated queues, and attainment of plans made with it.

The queues have random batch times and Poisson arrivals, and their 99th percentile is compared. The plans are for the
reference graphs (`benchmarks.a100`) and for the problems of `benchmarks.planner`, with both latency models. The servers
of each plan are simulated under Poisson arrivals at its demand.
"""

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from benchmarks import a100, harness, problems
from benchmarks.harness import Figure, Progress, figure
from benchmarks.planner import instances
from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.evaluation.simulator.arrivals import poisson
from jigsaw_triton.evaluation.simulator.simulate import simulate, stations
from jigsaw_triton.evaluation.simulator.station import Servers, serve
from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.domain.problem import LATENCY_MODELS, LatencyModel, Options, Problem
from jigsaw_triton.planner.latency.queueing import Case, latencies_ms
from jigsaw_triton.planner.search.solve import make_plan
from jigsaw_triton.profiles.service import ServiceTime

SEED = 1917
LOADS = (0.3, 0.6, 0.85)
BATCHES = (1, 2, 4, 8, 16, 32)
REPLICAS = (1, 2, 4, 8, 16)
TIMES = 3
"""Number of random batch times for each load, batch size and number of replicas."""

REQUESTS = 200_000
WARM_UP = 0.1
"""Share of the requests at the beginning that are not counted, because a queue starts empty."""

QUANTILE = 0.99

SLOS_MS = (150.0, 200.0, 300.0)
DEMANDS_RPS = (5.0, 40.0, 200.0, 1000.0)
GPUS = 8
PLAN_LIMIT_S = 8.0
PLAN_REQUESTS = 40_000
MANY_GPUS, MANY_REQUESTS = 120, 300_000


def queue_error(progress: Progress) -> list[Figure]:
    """Measures the relative error of the predicted percentile: its median, and the share that is far too low."""
    cases = list(_cases(random.Random(SEED)))
    progress(f"{len(cases)} queues")
    predicted = latencies_ms(tuple(cases), QUANTILE)
    errors = [ms / _simulated_ms(c, number) - 1 for number, (c, ms) in enumerate(zip(cases, predicted, strict=True))]
    off = [abs(e) for e in errors]
    note = (
        f"of {len(cases)} queues, p99 of {REQUESTS * (1 - WARM_UP):.0f} requests each: load "
        f"{', '.join(map(str, LOADS))}, batch {BATCHES[0]} to {BATCHES[-1]}, {REPLICAS[0]} to {REPLICAS[-1]} replicas; "
        f"errors {min(errors):+.2f} to {max(errors):+.2f}"
    )
    under = sum(e < -0.1 for e in errors) / len(errors)
    return [
        figure("planner.queue_error.median", median(off), "share", note, at_most=0.10),
        figure("planner.queue_error.under", under, "share", f"predictions more than 10% too low, {note}", at_most=0.02),
    ]


def _cases(rng: random.Random) -> Iterator[Case]:
    for load in LOADS:
        for batch in BATCHES:
            for replicas in REPLICAS:
                for _ in range(TIMES):
                    yield Case(_time(rng, batch), replicas, load)


def _time(rng: random.Random, batch: int) -> ServiceTime:
    """Returns a random batch time: a fixed part plus a part that grows roughly linearly with the items, with a tail."""
    full_ms, fixed, p95 = rng.uniform(5.0, 100.0), rng.uniform(0.1, 0.8), rng.uniform(1.03, 1.4)
    sizes = [size for size in BATCHES if size <= batch]
    bend = rng.uniform(0.85, 1.15)
    medians = [full_ms * (fixed + (1 - fixed) * (size / batch) ** bend) for size in sizes]
    return ServiceTime(tuple(sizes), tuple(medians), p95, p95 * rng.uniform(1.0, 1.4))


def _simulated_ms(case: Case, number: int) -> float:
    """Returns the percentile of a simulated queue, in milliseconds."""
    rng = np.random.default_rng([SEED, number])
    rate_rps = case.load * case.instances * case.time.batch / case.time.occupied_ms * 1000
    arrivals_s = poisson(rate_rps, REQUESTS, rng)
    served = serve(arrivals_s, [Servers("v", case.instances, case.time)], rng)
    took_ms = 1000 * (served.finish_s - arrivals_s)[int(WARM_UP * REQUESTS) :]
    return float(np.quantile(took_ms, QUANTILE))


@dataclass(frozen=True, slots=True)
class Held:
    """Slices of a plan, and share of the requests that its servers answer within the SLO in simulation."""

    slices: int
    within: float


def latency_models(progress: Progress) -> list[Figure]:
    """Measures the share of plans that keep their SLO in simulation, and their slices, for each latency model."""
    if not a100.TABLE.exists():
        progress(f"no figures of latency models: {a100.TABLE} is missing")
        return []
    found: dict[LatencyModel, list[Held]] = {model: [] for model in LATENCY_MODELS}
    for graph in (_with_slo(a100.reference_graph(name), ms) for name in a100.NAMES for ms in SLOS_MS):
        table = a100.a100_table(graph)
        for demand_rps in DEMANDS_RPS:
            try:
                problem = Problem((Workload(graph, demand_rps),), problems.cluster(GPUS), {graph.name: table})
                both = {model: _held(problem, model, PLAN_REQUESTS) for model in LATENCY_MODELS}
            except InfeasibleError:
                continue
            results = ", ".join(f"{model} {held.slices} slices {held.within:.4f}" for model, held in both.items())
            progress(f"{graph.name} {graph.slo.latency_ms:g} ms {demand_rps:g} requests/s: {results}")
            for model, held in both.items():
                found[model].append(held)
    what = (
        f"{', '.join(a100.NAMES)} at {', '.join(f'{s:g}' for s in SLOS_MS)} ms and "
        f"{', '.join(f'{d:g}' for d in DEMANDS_RPS)} requests/s, {PLAN_REQUESTS} simulated requests each"
    )
    return _compared("", found, what)


def many_gpus(progress: Progress) -> list[Figure]:
    """Compares the latency models on plans for many GPUs, where many replicas pull from each queue."""
    found: dict[LatencyModel, list[Held]] = {model: [] for model in LATENCY_MODELS}
    for name, problem in instances(MANY_GPUS).items():
        for model in LATENCY_MODELS:
            held = _held(problem, model, MANY_REQUESTS)
            progress(f"{name} on {MANY_GPUS} GPUs: {model} {held.slices} slices {held.within:.4f}")
            found[model].append(held)
    what = f"three tasks on {MANY_GPUS} GPUs, {MANY_REQUESTS} simulated requests each"
    return _compared(f".{MANY_GPUS}_gpus", found, what)


def _compared(suffix: str, found: Mapping[LatencyModel, Sequence[Held]], what: str) -> list[Figure]:
    slices = {model: sum(held.slices for held in plans) for model, plans in found.items()}
    keep = {model: sum(held.within >= QUANTILE for held in plans) / len(plans) for model, plans in found.items()}
    note = f"of {len(found['queue'])} plans for {what}; baseline 2p95"
    return [
        figure(f"planner.queue_held{suffix}", keep["queue"], "share", note, at_least=1.0, baseline=keep["2p95"]),
        figure(f"planner.queue_slices{suffix}", slices["queue"], "slices", f"total {note}", baseline=slices["2p95"]),
    ]


def _with_slo(graph: TaskGraph, latency_ms: float) -> TaskGraph:
    return replace(graph, slo=replace(graph.slo, latency_ms=latency_ms, percentile=100 * QUANTILE))


def _held(problem: Problem, model: LatencyModel, requests: int) -> Held:
    (workload,) = problem.workloads
    graph, table = workload.graph, problem.profiles[workload.graph.name]
    plan = make_plan(problem, Options(latency_model=model, time_limit_s=PLAN_LIMIT_S))
    arrivals_s = poisson(workload.demand_rps, requests, np.random.default_rng(SEED))
    simulated = simulate(graph, stations(graph.name, plan.gpus, table), arrivals_s, seed=SEED)
    return Held(plan.slices_used, simulated.attainment(graph.slo.latency_ms))


def measure(progress: Progress) -> Sequence[Figure]:
    """Measures all figures."""
    return [*queue_error(progress), *latency_models(progress), *many_gpus(progress)]


if __name__ == "__main__":
    with harness.alarm():
        sys.exit(harness.main("queueing", measure))
