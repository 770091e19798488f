"""Extracts each graph's part of a plan from counts of replicas: shares, budgets and predictions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.candidates.configurations import Configuration, Replica, accuracy_budget
from jigsaw_triton.planner.candidates.filters import even_parts
from jigsaw_triton.planner.domain.accuracy import with_pair_losses
from jigsaw_triton.planner.domain.paths import longest_through
from jigsaw_triton.planner.domain.plan import GraphPlan, Segment, TaskPlan
from jigsaw_triton.planner.domain.problem import ReplicaRange
from jigsaw_triton.planner.domain.processors import REQUEST_S, ProcessorLimit
from jigsaw_triton.planner.domain.rates import calls, most_calls
from jigsaw_triton.planner.domain.survival import domain_of
from jigsaw_triton.planner.domain.throughput import graph_throughput_rps
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.formulation.incremental_levels import Weight, path_ends
from jigsaw_triton.planner.formulation.mixture import mean_loss, mean_weights
from jigsaw_triton.planner.solver.program import Draft, Program

Counts = Mapping[Configuration, int]
"""Configuration -> number of replicas, above 0."""

Loads = Mapping[tuple[Replica, ReplicaRange], Sequence[Configuration]]
"""Configurations that differ only in utilisation, by rising utilisation; a key that is absent has only one."""


@dataclass(frozen=True, slots=True)
class Flows:
    """The program of the flows through given replicas at the planned demands, with the most accurate variants first.

    It is solved separately from the plan's program so that the flows depend only on the replicas.

    Attributes:
        program: The program to solve.
        rate: (graph, task, variant) -> column of the calls for a request of the graph.
    """

    program: Program
    rate: Mapping[tuple[str, str, str], int]

    def calls(self, values: Sequence[float]) -> dict[tuple[str, str, str], float]:
        """Returns (graph, task, variant) -> calls for a request of the graph."""
        return {key: max(0.0, values[column]) for key, column in self.rate.items()}


def flows(
    workloads: Sequence[Workload], counts: Counts, limit: ProcessorLimit | None = None, survive: float = 0.0
) -> Flows:
    """Builds the program of flows through given replicas.

    Args:
        workloads: Graphs and demands.
        counts: The replicas.
        limit: Limit on processors that their slices share; None for none.
        survive: Share of the demand that the loss of any failure domain must leave; 0 for none. Where the accuracy SLO
            is a mean, the rest serves it with the same shares of variants.
    """
    draft, rate = Draft(), dict[tuple[str, str, str], int]()
    usable: dict[tuple[str, str, str], float] = {}
    losses: dict[tuple[str, str, str], float] = {}
    for c, count in sorted(counts.items()):
        key = (c.graph, c.task, c.variant)
        usable[key] = usable.get(key, 0.0) + count * c.throughput_rps
        losses[key] = c.loss
    left = _left(counts) if survive else {}
    objective: list[tuple[int, float]] = []
    for workload in workloads:
        graph = workload.graph
        means = graph.slo.accuracy_mode == "mean"
        variants = {t: sorted(v for g, task, v in usable if (g, task) == (graph.name, t)) for t in graph.tasks}
        largest = most_calls(graph, variants)
        for task in graph.tasks.values():
            keys = [(graph.name, task.name, v) for v in variants[task.name]]
            for key in keys:
                most = min(usable[key], left[key] / survive) if survive and means else usable[key]
                # The replicas suffice only within the solver's tolerance, so this limit needs some slack.
                rate[key] = draft.real(most / workload.demand_rps * (1 + TOLERANCE / 10))
                objective.append((rate[key], losses[key] / (largest[task.name] or 1.0)))
            rule = calls(graph, task)
            own = [(rate[key], 1.0) for key in keys]
            if rule.source is None:
                draft.equal(rule.factor, own)
            else:
                source = rule.source
                taken = [(rate[graph.name, source, v], -rule.weight(graph, v)) for v in variants[source]]
                draft.equal(0, own + taken)
        if means:
            shares = {t: {v: rate[graph.name, t, v] for v in names} for t, names in variants.items()}
            weights = mean_weights(draft, graph, shares, largest)
            worst = {t: Weight(max(losses[graph.name, t, v] for v in names)) for t, names in variants.items()}
            for end in path_ends(draft, graph, worst | weights):
                # The shares with which the replicas were chosen keep the SLO only within the solver's tolerance.
                draft.at_most(accuracy_budget(graph) + TOLERANCE / 2, [(end, 1.0)])
    if limit is not None:
        parts = {c: n * c.throughput_rps / usable[c.graph, c.task, c.variant] for c, n in counts.items()}
        _processor_row(draft, workloads, parts, rate, limit)
    draft.minimise(objective, gap=1e-9)
    return Flows(draft.program(), rate)


def _processor_row(
    draft: Draft,
    workloads: Sequence[Workload],
    parts: Mapping[Configuration, float],
    rate: Mapping[tuple[str, str, str], int],
    limit: ProcessorLimit,
) -> None:
    """Writes the row by which the processors that slices share carry all flows, if any replica takes processors.

    Args:
        draft: Program that gets the row.
        workloads: Graphs and demands.
        parts: Part of its variant's calls that the replicas of each configuration take.
        rate: (graph, task, variant) -> column of its calls for a request.
        limit: Limit on the processors.
    """
    demands = {workload.graph.name: workload.demand_rps for workload in workloads}
    busy: dict[int, float] = {}
    for c, part in parts.items():
        column = rate[c.graph, c.task, c.variant]
        call_s = limit.call_s(c.graph, c.task, c.variant, c.board, c.slice, c.batch) or 0.0
        busy[column] = busy.get(column, 0.0) + demands[c.graph] * part * call_s
    if any(busy.values()):
        draft.at_most(limit.processors * limit.nodes - REQUEST_S * sum(demands.values()), busy.items())


def _left(counts: Counts) -> dict[tuple[str, str, str], float]:
    """Returns the calls a second of each variant that the worst loss of a failure domain leaves."""
    total: dict[tuple[str, str, str], float] = {}
    inside: dict[tuple[str, str, str], dict[str, float]] = {}
    for c, count in counts.items():
        key, domain = (c.graph, c.task, c.variant), domain_of(c.board)
        total[key] = total.get(key, 0.0) + count * c.throughput_rps
        by_domain = inside.setdefault(key, {})
        by_domain[domain] = by_domain.get(domain, 0.0) + count * c.throughput_rps
    return {key: rps - max(inside[key].values()) for key, rps in total.items()}


def graph_plan(
    workload: Workload,
    counts: Counts,
    rates: Mapping[tuple[str, str, str], float],
    *,
    loads: Loads | None = None,
    even: bool = False,
    spare: bool = False,
) -> GraphPlan:
    """Extracts a graph's part of the plan.

    Latencies are those at the lowest utilisations that carry the flows. The capacity is that at the highest
    utilisations that the budgets allow.

    A task's latency budget is the latency of its slowest configuration, scaled up as far as the tightest path through
    the task allows, or its even part of the SLO. Along no path do the budgets exceed the SLO.

    Args:
        workload: Graph and demand.
        counts: Number of replicas, possibly including other graphs.
        rates: (graph, task, variant) -> calls for a request.
        loads: Utilisations of the configurations.
        even: True if the budgets are even parts of the SLO.
        spare: True if replicas must have time for the calls of others that may be lost: latencies are then those at
            the planned utilisations.
    """
    graph, loads, rps = workload.graph, loads or {}, workload.demand_rps
    own = {
        t: _at_lowest_load(
            {c: n for c, n in counts.items() if (c.graph, c.task) == (graph.name, t)},
            rates,
            rps,
            {} if spare else loads,
        )
        for t in graph.tasks
    }
    latency = {t: max(c.latency_ms for c in used) for t, used in own.items()}
    through = longest_through(graph, latency)
    parts = even_parts(graph) if even else {t: latency[t] / max(through[t], 1e-12) for t in graph.tasks}
    budget_ms = {t: part * graph.tasks_ms for t, part in parts.items()}
    tasks = {}
    for name, used in own.items():
        total = fsum(rates[graph.name, name, v] for v in {c.variant for c in used})
        tasks[name] = TaskPlan(
            budget_ms=budget_ms[name],
            rate_rps=total * rps,
            segments=_segments(used, {c.variant: rates[graph.name, name, c.variant] for c in used}, total),
        )
    if graph.slo.accuracy_mode == "mean":
        lost = {t: mean_loss(graph, t, task.mix) for t, task in tasks.items()}
    else:
        most = {t: max(c.loss for c in used) for t, used in own.items()}
        lost = with_pair_losses(graph, most, {t: {c.variant for c in used} for t, used in own.items()})
    return GraphPlan(
        demand_rps=rps,
        capacity_rps=_capacity(
            workload, {t: _at_highest_load(used, budget_ms[t], loads) for t, used in own.items()}, rates
        ),
        accuracy=math.exp(-max(longest_through(graph, lost).values())),
        latency_ms=max(through.values()) + graph.steps_ms,
        tasks=tasks,
    )


def _at_lowest_load(counts: Counts, rates: Mapping[tuple[str, str, str], float], rps: float, loads: Loads) -> Counts:
    """Moves a task's replicas to the lowest utilisations that carry its flows: equal replicas then get equal plans."""
    while True:
        usable: dict[tuple[str, str, str], float] = {}
        for c, n in counts.items():
            usable[c.graph, c.task, c.variant] = usable.get((c.graph, c.task, c.variant), 0.0) + n * c.throughput_rps
        busy = {key: rates[key] * rps / most * (1 - TOLERANCE) for key, most in usable.items()}
        lower = {
            next((at for at in _all_loads(c, loads) if at.utilisation >= c.utilisation * busy[c.replica[:3]]), c): n
            for c, n in counts.items()
        }
        if lower == counts:
            return counts
        counts = lower


def _all_loads(c: Configuration, loads: Loads) -> Sequence[Configuration]:
    """Returns a configuration at all its utilisations; none if it shares a slice, where latency depends on turns."""
    return () if c.shares else loads.get((c.replica, c.replica_range), ())


def _at_highest_load(counts: Counts, budget_ms: float, loads: Loads) -> Counts:
    """Moves a task's replicas to the highest utilisations that its budget allows."""
    return {
        max(
            (at for at in (c, *_all_loads(c, loads)) if at.latency_ms <= budget_ms * (1 + TOLERANCE) or at == c),
            key=lambda at: at.utilisation,
        ): n
        for c, n in counts.items()
    }


def _segments(counts: Counts, rates: Mapping[str, float], total: float) -> tuple[Segment, ...]:
    """Returns the segments of a task; each variant's rate is divided so that its replicas have equal utilisation."""
    usable: dict[str, float] = {}
    for c, n in counts.items():
        usable[c.variant] = usable.get(c.variant, 0.0) + n * c.throughput_rps
    everything = sum(usable.values())
    merged: dict[tuple[str, str, int, int], tuple[int, float]] = {}
    for c, n in sorted(counts.items()):
        part = rates[c.variant] / total if total > 0 else usable[c.variant] / everything
        share = part * n * c.throughput_rps / usable[c.variant]
        key = (c.variant, c.slice, c.instances, c.batch)
        count, before = merged.get(key, (0, 0.0))
        merged[key] = (count + n, before + share)
    return tuple(Segment(*key, count=count, share=share) for key, (count, share) in sorted(merged.items()))


def _capacity(workload: Workload, own: Mapping[str, Counts], rates: Mapping[tuple[str, str, str], float]) -> float:
    """Returns the requests a second that the replicas carry.

    This is the larger of the throughput with the planned shares and that of replicas that take whatever they can. If
    the accuracy SLO is a mean, which depends on the shares, only the planned shares count.
    """
    graph = workload.graph
    usable: dict[str, dict[str, float]] = {task: {} for task in graph.tasks}
    for task, counts in own.items():
        for c, n in counts.items():
            usable[task][c.variant] = usable[task].get(c.variant, 0.0) + n * c.throughput_rps
    planned = {task: {v: rates[graph.name, task, v] for v in by_variant} for task, by_variant in usable.items()}
    mixes = [planned] if graph.slo.accuracy_mode == "mean" else [planned, usable]
    return max(workload.demand_rps, *(graph_throughput_rps(graph, usable, mix) for mix in mixes))
