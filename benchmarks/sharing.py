"""Benchmark of slice sharing: slices that rarely called graphs take, and share of calls that are late."""

import heapq
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from benchmarks import harness, problems
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.planner.domain.problem import SHARED_LOAD, Options, Problem
from jigsaw_triton.planner.search.solve import make_plan

GRAPHS, GPUS = 10, 10
RPS = 1.0
SLO_MS = 300.0
ROUNDS = 3
LIMIT_S = 20.0
SEED = 2603

CHAIN = 3
"""Number of tasks of the simulated chain."""

CALLS = 60_000
"""Simulated calls of the watched model. A chain has fewer, because each of its calls takes a turn for each task."""

MIXES: dict[str, tuple[float, ...]] = {
    "two alike": (1, 1),
    "one long before one short": (9, 1),
    "one short before one long": (1, 9),
    "three alike": (1, 1, 1),
    "five alike": (1, 1, 1, 1, 1),
}
"""Name of a mix -> length of a turn of each model, in any unit. The last model is watched."""

OWN_LOADS = (0.05, 0.5)
"""Shares of the load that come from the watched model."""


def rare_graphs(seed: int, gpus: int = GPUS, *, slo_ms: float | None = None) -> Problem:
    """Returns ten made-up graphs of three tasks at a request a second each.

    Args:
        seed: Seed of the graphs.
        gpus: Number of GPUs.
        slo_ms: Latency SLO of all graphs; None for different ones.
    """
    problem = problems.many_graphs(random.Random(seed), GRAPHS, gpus)
    workloads = []
    for w in problem.workloads:
        slo = replace(w.graph.slo, latency_ms=slo_ms or w.graph.slo.latency_ms)
        workloads.append(replace(w, demand_rps=RPS, graph=replace(w.graph, slo=slo)))
    return replace(problem, workloads=tuple(workloads))


def shared_slices(progress: Progress) -> list[Figure]:
    """Measures compute slices and seconds with sharing, and slices without it, for equal and for different SLOs."""
    same, what = f"latency SLO {SLO_MS:g} ms", "smallest of the same instances without sharing"
    alone, shared, seconds, note = _slices(SLO_MS, progress)
    _, mixed, mixed_s, mixed_note = _slices(None, progress)
    return [
        figure("planner.shared_slices", max(shared), "slices", f"{note}; {same}", at_most=10),
        figure("planner.shared_slices.alone", min(alone), "slices", what),
        figure("planner.shared_slices.seconds", median(seconds), "s", f"median of {ROUNDS}, {spread(seconds)}"),
        figure("planner.shared_slices.mixed", max(mixed), "slices", f"{mixed_note}; latency SLOs from 150 to 350 ms"),
        figure("planner.shared_slices.mixed_s", median(mixed_s), "s", f"median of {ROUNDS}, {spread(mixed_s)}"),
    ]


def _slices(slo_ms: float | None, progress: Progress) -> tuple[list[int], list[int], list[float], str]:
    """Returns slices without sharing and with it, seconds, and a note."""
    alone, shared, seconds, proven = [], [], [], 0
    for seed in range(ROUNDS):
        problem = rare_graphs(seed, slo_ms=slo_ms)
        alone.append(make_plan(problem, Options(time_limit_s=LIMIT_S)).slices_used)
        began = time.monotonic()
        plan = make_plan(problem, Options(time_limit_s=LIMIT_S, share=True))
        seconds.append(time.monotonic() - began)
        shared.append(plan.slices_used)
        proven += plan.solver.status == "optimal"
        solver = f"{plan.solver.status}, gap {plan.solver.gap:.3f}"
        progress(f"{GRAPHS} rare graphs, {seed}: {shared[-1]} slices, {alone[-1]} alone, {seconds[-1]:.2f} s, {solver}")
    note = (
        f"largest of {ROUNDS} instances of {GRAPHS} made-up graphs of three tasks at {RPS:g} request/s each;"
        f" smallest {min(shared)}; {proven} proven optimal for the planned cycles"
    )
    return alone, shared, seconds, note


def shared_late(progress: Progress, steps: int = 1) -> Figure:
    """Measures the share of calls that take longer than planned in the worst order of turns.

    Planned are two cycles, where a cycle is one turn of each model; for a chain, two cycles for each task.

    Args:
        progress: Function that prints the progress.
        steps: Turns in a call of the watched model. With two or more it stands for a chain that is called at once. Each
            of its tasks may be late as often as a task that is called alone.
    """
    late = {
        (name, own): late_share(turns, SHARED_LOAD, own, CALLS // steps**2, steps) / steps
        for name, turns in MIXES.items()
        for own in OWN_LOADS
    }
    for (name, own), share in late.items():
        progress(f"{name}, {own:.0%} of the load from the watched model, {steps} at once: {share:.3%} late")
    (name, own), share = max(late.items(), key=lambda item: item[1])
    note = (
        f"worst of {len(late)} mixes ({name}, {own:.0%} of the load from the watched model), simulated with Poisson"
        f" arrivals, batches of one, every turn as long as its p95, and all other models first; load {SHARED_LOAD:g}"
    )
    if steps == 1:
        return figure("planner.shared_late", share, "share", note, at_most=0.01)
    note += f"; the watched model is a chain of {steps} tasks that is called at once; late calls divided by its tasks"
    return figure("planner.shared_late.chain", share, "share", note, at_most=0.01)


def late_share(turns: Sequence[float], load: float, own: float, calls: int, steps: int = 1) -> float:
    """Simulates one slice. Returns the share of the last model's calls that take longer than planned.

    Args:
        turns: Length of a turn of each model, by precedence. A turn that runs is not interrupted.
        load: Load of the slice.
        own: Share of the load that comes from the last model.
        calls: Calls of the last model to simulate.
        steps: Turns in a call of the last model, one after the other, each after all waiting turns of other models.
    """
    rng = random.Random(SEED)
    parts = [(1 - own) / (len(turns) - 1)] * (len(turns) - 1) + [own]
    rates = [load * part / turn for part, turn in zip(parts, turns, strict=True)]
    rates[-1] /= steps
    coming = [(rng.expovariate(rate), number) for number, rate in enumerate(rates)]
    heapq.heapify(coming)
    waiting: list[list[float]] = [[] for _ in turns]
    now, done, late, step = 0.0, 0, 0, 0
    while done < calls:
        while coming[0][0] <= now or not any(waiting):
            at, number = heapq.heappop(coming)
            waiting[number].append(at)
            now = max(now, at)
            heapq.heappush(coming, (at + rng.expovariate(rates[number]), number))
        number = next(number for number, calls_ in enumerate(waiting) if calls_)
        now += turns[number]
        if number < len(turns) - 1:
            waiting[number].pop(0)
            continue
        step = (step + 1) % steps
        if step == 0:
            done += 1
            late += now - waiting[number].pop(0) > 2 * steps * sum(turns)
    return late / calls


def measure(progress: Progress) -> Sequence[Figure]:
    """Measures all figures."""
    return [*shared_slices(progress), shared_late(progress), shared_late(progress, CHAIN)]


if __name__ == "__main__":
    with harness.alarm():
        sys.exit(harness.main("sharing", measure))
