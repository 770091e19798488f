"""How many slices rarely called graphs take where models share slices, and how often a call in one is late."""

import heapq
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from benchmarks import harness, problems
from benchmarks.harness import Figure, Tell, figure, spread
from jigsaw_triton.planner.domain.problem import SHARED_LOAD, Options, Problem
from jigsaw_triton.planner.search.solve import make_plan

GRAPHS, GPUS = 10, 10
RPS = 1.0
SLO_MS = 300.0
ROUNDS = 3
LIMIT_S = 20.0
SEED = 2603

CHAIN = 3
"""Tasks of the one that is simulated."""

CALLS = 60_000
"""That are simulated of the model that is watched; fewer of a chain, whose calls take as many turns as it has tasks."""

MIXES: dict[str, tuple[float, ...]] = {
    "two alike": (1, 1),
    "one long before one short": (9, 1),
    "one short before one long": (1, 9),
    "three alike": (1, 1, 1),
    "five alike": (1, 1, 1, 1, 1),
}
"""How long a turn of each model takes, in any unit; the last one is watched."""

OWN_LOADS = (0.05, 0.5)
"""Share of the load that is the last model's own."""


def rare_graphs(seed: int, gpus: int = GPUS, *, slo_ms: float | None = None) -> Problem:
    """Ten made-up graphs of three tasks at a request a second each, with SLOs of their own or all with one latency."""
    asked = problems.many_graphs(random.Random(seed), GRAPHS, gpus)
    workloads = []
    for w in asked.workloads:
        slo = replace(w.graph.slo, latency_ms=slo_ms or w.graph.slo.latency_ms)
        workloads.append(replace(w, demand_rps=RPS, graph=replace(w.graph, slo=slo)))
    return replace(asked, workloads=tuple(workloads))


def shared_slices(tell: Tell) -> list[Figure]:
    """Compute slices and seconds with sharing, and slices without; for one latency and for many."""
    same, what = f"latency SLO {SLO_MS:g} ms", "the fewest of the same instances, none shared"
    alone, shared, seconds, note = _slices(SLO_MS, tell)
    _, mixed, mixed_s, mixed_note = _slices(None, tell)
    return [
        figure("planner.shared_slices", max(shared), "slices", f"{note}; {same}", at_most=10),
        figure("planner.shared_slices.alone", min(alone), "slices", what),
        figure("planner.shared_slices.seconds", median(seconds), "s", f"median of {ROUNDS}, {spread(seconds)}"),
        figure("planner.shared_slices.mixed", max(mixed), "slices", f"{mixed_note}; latency SLOs from 150 to 350 ms"),
        figure("planner.shared_slices.mixed_s", median(mixed_s), "s", f"median of {ROUNDS}, {spread(mixed_s)}"),
    ]


def _slices(slo_ms: float | None, tell: Tell) -> tuple[list[int], list[int], list[float], str]:
    """Slices without sharing and with it, seconds, and a note."""
    alone, shared, seconds, proven = [], [], [], 0
    for seed in range(ROUNDS):
        asked = rare_graphs(seed, slo_ms=slo_ms)
        alone.append(make_plan(asked, Options(time_limit_s=LIMIT_S)).slices_used)
        began = time.monotonic()
        plan = make_plan(asked, Options(time_limit_s=LIMIT_S, share=True))
        seconds.append(time.monotonic() - began)
        shared.append(plan.slices_used)
        proven += plan.solver.status == "optimal"
        solver = f"{plan.solver.status}, gap {plan.solver.gap:.3f}"
        tell(f"{GRAPHS} rare graphs, {seed}: {shared[-1]} slices, {alone[-1]} alone, {seconds[-1]:.2f} s, {solver}")
    note = (
        f"the most of {ROUNDS} instances of {GRAPHS} made-up graphs of three tasks at {RPS:g} request/s each;"
        f" {min(shared)} the fewest; {proven} proven best for the cycles that are planned with"
    )
    return alone, shared, seconds, note


def shared_late(tell: Tell, steps: int = 1) -> Figure:
    """The share of calls that take longer than planned in the worst order of turns: twice a cycle, or a chain's like.

    Args:
        tell: Progress.
        steps: Of the model that is watched; from two on it stands for a chain that is called at once. Each of its tasks
            may be as often late as one that is called alone.
    """
    late = {
        (name, own): late_share(turns, SHARED_LOAD, own, CALLS // steps**2, steps) / steps
        for name, turns in MIXES.items()
        for own in OWN_LOADS
    }
    for (name, own), share in late.items():
        tell(f"{name}, {own:.0%} of the load its own, {steps} at once: {share:.3%} late")
    (name, own), share = max(late.items(), key=lambda item: item[1])
    note = (
        f"worst of {len(late)} mixes ({name}, {own:.0%} of the load its own), simulated with Poisson arrivals, batches"
        f" of one, every turn as long as its p95, and all other models first; at a load of {SHARED_LOAD:g}"
    )
    if steps == 1:
        return figure("planner.shared_late", share, "share", note, at_most=0.01)
    note += f"; the last model is a chain of {steps} tasks that is called at once, counted for each of them"
    return figure("planner.shared_late.chain", share, "share", note, at_most=0.01)


def late_share(turns: Sequence[float], load: float, own: float, calls: int, steps: int = 1) -> float:
    """Of the last model's calls those that take longer than planned.

    Args:
        turns: Of each model, in the order in which they are served; one that runs is not interrupted.
        load: Of the slice.
        own: Share of it that is the last model's.
        calls: Of that model.
        steps: Turns that a call of it takes, one after the other, each after the others' that wait.
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


def measure(tell: Tell) -> Sequence[Figure]:
    """All figures."""
    return [*shared_slices(tell), shared_late(tell), shared_late(tell, CHAIN)]


if __name__ == "__main__":
    with harness.alarm():
        sys.exit(harness.main("sharing", measure))
