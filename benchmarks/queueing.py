"""How near the planner's latency under load comes to simulated queues, and what plans made with it hold.

Queues: the time of a batch is made up at random; Poisson arrivals; the 99th percentile. Plans: the reference graphs
(`benchmarks.a100`) and those of `benchmarks.planner` by both latency models, each plan's servers simulated under
Poisson arrivals at its demand.
"""

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from benchmarks import a100, harness, problems
from benchmarks.harness import Figure, Tell, figure
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
"""Made-up times of a batch for each load, batch and number of replicas."""

REQUESTS = 200_000
WARM_UP = 0.1
"""Share of the requests that are not counted: a queue begins empty."""

QUANTILE = 0.99

SLOS_MS = (150.0, 200.0, 300.0)
DEMANDS_RPS = (5.0, 40.0, 200.0, 1000.0)
GPUS = 8
PLAN_LIMIT_S = 8.0
PLAN_REQUESTS = 40_000
MANY_GPUS, MANY_REQUESTS = 120, 300_000


def queue_error(tell: Tell) -> list[Figure]:
    """Relative error of the predicted against the simulated percentile: its median, and how often it is far below."""
    cases = list(_cases(random.Random(SEED)))
    tell(f"{len(cases)} queues")
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
        figure("planner.queue_error.under", under, "share", f"predicted by over 10% too low, {note}", at_most=0.02),
    ]


def _cases(rng: random.Random) -> Iterator[Case]:
    for load in LOADS:
        for batch in BATCHES:
            for replicas in REPLICAS:
                for _ in range(TIMES):
                    yield Case(_time(rng, batch), replicas, load)


def _time(rng: random.Random, batch: int) -> ServiceTime:
    """Of a batch: a part of it however few the items, in between a little above or below the line; with a tail."""
    full_ms, fixed, p95 = rng.uniform(5.0, 100.0), rng.uniform(0.1, 0.8), rng.uniform(1.03, 1.4)
    sizes = [size for size in BATCHES if size <= batch]
    bend = rng.uniform(0.85, 1.15)
    medians = [full_ms * (fixed + (1 - fixed) * (size / batch) ** bend) for size in sizes]
    return ServiceTime(tuple(sizes), tuple(medians), p95, p95 * rng.uniform(1.0, 1.4))


def _simulated_ms(case: Case, number: int) -> float:
    """The percentile of a simulation."""
    rng = np.random.default_rng([SEED, number])
    rate_rps = case.load * case.instances * case.time.batch / case.time.occupied_ms * 1000
    arrivals_s = poisson(rate_rps, REQUESTS, rng)
    served = serve(arrivals_s, [Servers("v", case.instances, case.time)], rng)
    took_ms = 1000 * (served.finish_s - arrivals_s)[int(WARM_UP * REQUESTS) :]
    return float(np.quantile(took_ms, QUANTILE))


@dataclass(frozen=True, slots=True)
class Held:
    """What a plan takes, and the share of the requests that its servers answer within the SLO."""

    slices: int
    within: float


def latency_models(tell: Tell) -> list[Figure]:
    """By latency model: the share of plans that keep their SLO where simulated, and their compute slices."""
    if not a100.TABLE.exists():
        tell(f"no figures of latency models: {a100.TABLE} is not there")
        return []
    found: dict[LatencyModel, list[Held]] = {model: [] for model in LATENCY_MODELS}
    for graph in (_with_slo(a100.reference_graph(name), ms) for name in a100.NAMES for ms in SLOS_MS):
        table = a100.a100_table(graph)
        for demand_rps in DEMANDS_RPS:
            try:
                asked = Problem((Workload(graph, demand_rps),), problems.cluster(GPUS), {graph.name: table})
                both = {model: _held(asked, model, PLAN_REQUESTS) for model in LATENCY_MODELS}
            except InfeasibleError:
                continue
            said = ", ".join(f"{model} {held.slices} slices {held.within:.4f}" for model, held in both.items())
            tell(f"{graph.name} {graph.slo.latency_ms:g} ms {demand_rps:g} requests/s: {said}")
            for model, held in both.items():
                found[model].append(held)
    what = (
        f"{', '.join(a100.NAMES)} at {', '.join(f'{s:g}' for s in SLOS_MS)} ms and "
        f"{', '.join(f'{d:g}' for d in DEMANDS_RPS)} requests/s, {PLAN_REQUESTS} simulated requests each"
    )
    return _compared("", found, what)


def many_gpus(tell: Tell) -> list[Figure]:
    """Likewise of plans for many GPUs, where many replicas pull from each queue."""
    found: dict[LatencyModel, list[Held]] = {model: [] for model in LATENCY_MODELS}
    for name, asked in instances(MANY_GPUS).items():
        for model in LATENCY_MODELS:
            held = _held(asked, model, MANY_REQUESTS)
            tell(f"{name} on {MANY_GPUS} GPUs: {model} {held.slices} slices {held.within:.4f}")
            found[model].append(held)
    what = f"three tasks on {MANY_GPUS} GPUs, {MANY_REQUESTS} simulated requests each"
    return _compared(f".{MANY_GPUS}_gpus", found, what)


def _compared(suffix: str, found: Mapping[LatencyModel, Sequence[Held]], what: str) -> list[Figure]:
    slices = {model: sum(held.slices for held in plans) for model, plans in found.items()}
    keep = {model: sum(held.within >= QUANTILE for held in plans) / len(plans) for model, plans in found.items()}
    note = f"of {len(found['queue'])} plans for {what}; baseline 2p95"
    return [
        figure(f"planner.queue_held{suffix}", keep["queue"], "share", note, at_least=1.0, baseline=keep["2p95"]),
        figure(f"planner.queue_slices{suffix}", slices["queue"], "slices", f"in all, {note}", baseline=slices["2p95"]),
    ]


def _with_slo(graph: TaskGraph, latency_ms: float) -> TaskGraph:
    return replace(graph, slo=replace(graph.slo, latency_ms=latency_ms, percentile=100 * QUANTILE))


def _held(asked: Problem, model: LatencyModel, requests: int) -> Held:
    (workload,) = asked.workloads
    graph, table = workload.graph, asked.profiles[workload.graph.name]
    plan = make_plan(asked, Options(latency_model=model, time_limit_s=PLAN_LIMIT_S))
    arrivals_s = poisson(workload.demand_rps, requests, np.random.default_rng(SEED))
    simulated = simulate(graph, stations(graph.name, plan.gpus, table), arrivals_s, seed=SEED)
    return Held(plan.slices_used, simulated.attainment(graph.slo.latency_ms))


def measure(tell: Tell) -> Sequence[Figure]:
    """All figures."""
    return [*queue_error(tell), *latency_models(tell), *many_gpus(tell)]


if __name__ == "__main__":
    with harness.alarm():
        sys.exit(harness.main("queueing", measure))
