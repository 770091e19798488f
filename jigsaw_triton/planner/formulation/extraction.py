"""From counts of replicas to what each graph gets: shares, budgets, predictions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.candidates.configurations import (
    Configuration,
    Replica,
    accuracy_budget,
    even_parts,
)
from jigsaw_triton.planner.domain.paths import longest_through
from jigsaw_triton.planner.domain.plan import GraphPlan, Segment, TaskPlan
from jigsaw_triton.planner.domain.problem import ReplicaRange
from jigsaw_triton.planner.domain.rates import calls, most_calls
from jigsaw_triton.planner.domain.throughput import graph_throughput_rps
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.formulation.incremental_levels import Weight, path_ends
from jigsaw_triton.planner.formulation.mixture import mean_loss, mean_weights
from jigsaw_triton.planner.solver.program import Draft, Program

Counts = Mapping[Configuration, int]
"""Replicas by configuration, none of them 0."""

Loads = Mapping[tuple[Replica, ReplicaRange], Sequence[Configuration]]
"""The configurations that differ in utilisation alone, by rising utilisation; of what is absent there is one."""


@dataclass(frozen=True, slots=True)
class Flows:
    """The program of the flows that given replicas carry at the planned demands, most accurate first.

    It is solved apart from the plan's program so that the flows depend on the replicas alone.

    Attributes:
        program: To solve.
        rate: (graph, task, variant) -> column of calls for a request of the graph.
    """

    program: Program
    rate: Mapping[tuple[str, str, str], int]

    def calls(self, values: Sequence[float]) -> dict[tuple[str, str, str], float]:
        """(graph, task, variant) -> calls for a request of the graph."""
        return {key: max(0.0, values[column]) for key, column in self.rate.items()}


def flows(workloads: Sequence[Workload], counts: Counts) -> Flows:
    """Builds the program of flows through given replicas."""
    draft, rate = Draft(), dict[tuple[str, str, str], int]()
    usable: dict[tuple[str, str, str], float] = {}
    losses: dict[tuple[str, str, str], float] = {}
    for c, count in sorted(counts.items()):
        key = (c.graph, c.task, c.variant)
        usable[key] = usable.get(key, 0.0) + count * c.throughput_rps
        losses[key] = c.loss
    objective: list[tuple[int, float]] = []
    for workload in workloads:
        graph = workload.graph
        variants = {t: sorted(v for g, task, v in usable if (g, task) == (graph.name, t)) for t in graph.tasks}
        largest = most_calls(graph, variants)
        for task in graph.tasks.values():
            keys = [(graph.name, task.name, v) for v in variants[task.name]]
            for key in keys:
                # The replicas suffice within the solver's tolerance; a part more keeps that from failing here.
                rate[key] = draft.real(usable[key] / workload.demand_rps * (1 + TOLERANCE / 10))
                objective.append((rate[key], losses[key] / (largest[task.name] or 1.0)))
            rule = calls(graph, task)
            own = [(rate[key], 1.0) for key in keys]
            if rule.source is None:
                draft.equal(rule.factor, own)
            else:
                source = rule.source
                taken = [(rate[graph.name, source, v], -rule.weight(graph, v)) for v in variants[source]]
                draft.equal(0, own + taken)
        if graph.slo.accuracy_mode == "mean":
            shares = {t: {v: rate[graph.name, t, v] for v in of} for t, of in variants.items()}
            weights = mean_weights(draft, graph, shares, largest)
            worst = {t: Weight(max(losses[graph.name, t, v] for v in of)) for t, of in variants.items()}
            for end in path_ends(draft, graph, worst | weights):
                # The shares that the replicas were chosen with keep the SLO within the solver's tolerance.
                draft.at_most(accuracy_budget(graph) + TOLERANCE / 2, [(end, 1.0)])
    draft.minimise(objective, gap=1e-9)
    return Flows(draft.program(), rate)


def graph_plan(
    workload: Workload,
    counts: Counts,
    rates: Mapping[tuple[str, str, str], float],
    *,
    loads: Loads | None = None,
    even: bool = False,
) -> GraphPlan:
    """What a graph gets of the replicas.

    Latencies are at the least loads that carry the flows, the capacity at the greatest that the budgets allow.

    A task's latency budget is what its slowest configuration needs, stretched as far as the tightest path through it
    allows, or its even part of the SLO: along no path do the budgets exceed the SLO.

    Args:
        workload: The graph and its demand.
        counts: ReplicaRange, of other graphs too.
        rates: (graph, task, variant) -> calls for a request.
        loads: Of the configurations.
        even: Whether the budgets are even parts of the SLO.
    """
    graph, loads, rps = workload.graph, loads or {}, workload.demand_rps
    own = {
        t: _settled({c: n for c, n in counts.items() if (c.graph, c.task) == (graph.name, t)}, rates, rps, loads)
        for t in graph.tasks
    }
    latency = {t: max(c.latency_ms for c in of) for t, of in own.items()}
    through = longest_through(graph, latency)
    parts = even_parts(graph) if even else {t: latency[t] / max(through[t], 1e-12) for t in graph.tasks}
    budget_ms = {t: part * graph.tasks_ms for t, part in parts.items()}
    tasks = {}
    for name, of in own.items():
        total = sum(rates[graph.name, name, v] for v in {c.variant for c in of})
        tasks[name] = TaskPlan(
            budget_ms=budget_ms[name],
            rate_rps=total * rps,
            segments=_segments(of, {c.variant: rates[graph.name, name, c.variant] for c in of}, total),
        )
    if graph.slo.accuracy_mode == "mean":
        lost = {t: mean_loss(graph, t, of.mix) for t, of in tasks.items()}
    else:
        lost = {t: max(c.loss for c in of) for t, of in own.items()}
    return GraphPlan(
        demand_rps=rps,
        capacity_rps=_capacity(workload, {t: _raised(of, budget_ms[t], loads) for t, of in own.items()}, rates),
        accuracy=math.exp(-max(longest_through(graph, lost).values())),
        latency_ms=max(through.values()) + graph.steps_ms,
        tasks=tasks,
    )


def _settled(of: Counts, rates: Mapping[tuple[str, str, str], float], rps: float, loads: Loads) -> Counts:
    """A task's replicas at the least loads that carry its flows: the same replicas get the same plan."""
    while True:
        usable: dict[tuple[str, str, str], float] = {}
        for c, n in of.items():
            usable[c.graph, c.task, c.variant] = usable.get((c.graph, c.task, c.variant), 0.0) + n * c.throughput_rps
        busy = {key: rates[key] * rps / most * (1 - TOLERANCE) for key, most in usable.items()}
        lower = {
            next((at for at in _others(c, loads) if at.utilisation >= c.utilisation * busy[c.replica[:3]]), c): n
            for c, n in of.items()
        }
        if lower == of:
            return of
        of = lower


def _others(c: Configuration, loads: Loads) -> Sequence[Configuration]:
    """A configuration at other loads; none where it shares a slice, and how long it takes is a matter of its turns."""
    return () if c.shares else loads.get((c.replica, c.among), ())


def _raised(of: Counts, budget_ms: float, loads: Loads) -> Counts:
    """A task's replicas at the greatest loads that its budget allows."""
    return {
        max(
            (at for at in (c, *_others(c, loads)) if at.latency_ms <= budget_ms * (1 + TOLERANCE) or at == c),
            key=lambda at: at.utilisation,
        ): n
        for c, n in of.items()
    }


def _segments(of: Counts, rates: Mapping[str, float], total: float) -> tuple[Segment, ...]:
    """Segments of a task; replicas of one variant share its rate by what they can carry, so all are equally busy."""
    usable: dict[str, float] = {}
    for c, n in of.items():
        usable[c.variant] = usable.get(c.variant, 0.0) + n * c.throughput_rps
    everything = sum(usable.values())
    merged: dict[tuple[str, str, int, int], tuple[int, float]] = {}
    for c, n in sorted(of.items()):
        part = rates[c.variant] / total if total > 0 else usable[c.variant] / everything
        share = part * n * c.throughput_rps / usable[c.variant]
        key = (c.variant, c.slice, c.instances, c.batch)
        count, before = merged.get(key, (0, 0.0))
        merged[key] = (count + n, before + share)
    return tuple(Segment(*key, count=count, share=share) for key, (count, share) in sorted(merged.items()))


def _capacity(workload: Workload, own: Mapping[str, Counts], rates: Mapping[tuple[str, str, str], float]) -> float:
    """Requests a second that the replicas carry: by the planned shares, or where every replica takes what it can.

    By those shares alone where the mean accuracy hangs on them.
    """
    graph = workload.graph
    usable: dict[str, dict[str, float]] = {task: {} for task in graph.tasks}
    for task, counts in own.items():
        for c, n in counts.items():
            usable[task][c.variant] = usable[task].get(c.variant, 0.0) + n * c.throughput_rps
    planned = {task: {v: rates[graph.name, task, v] for v in of} for task, of in usable.items()}
    mixes = [planned] if graph.slo.accuracy_mode == "mean" else [planned, usable]
    return max(workload.demand_rps, *(graph_throughput_rps(graph, usable, mix) for mix in mixes))
