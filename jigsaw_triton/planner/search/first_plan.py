"""First plan: a feasible plan without a solver, within tenths of a second however busy the machine is.

Graphs that run keep their replicas, and get more of the same where their demand has grown. Other graphs get one
configuration for each task: of those within the latency and the loss that the lower bound leaves to the task, the one
that carries its rate at the least cost. The plan is checked like any other. It is an upper bound: the programs of
this package usually find a plan of fewer slices. There may be a plan even if this construction finds none.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

from jigsaw_triton.gpus.model import GpuId
from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.bounds.bounds import least_slices
from jigsaw_triton.planner.candidates.configurations import (
    Configuration,
    Replica,
    TaskConfigurations,
    available,
    by_load,
)
from jigsaw_triton.planner.domain.accuracy import Use, excluded
from jigsaw_triton.planner.domain.plan import CONSTRUCTED, GraphPlan, PlacedSlice, Plan, SolverReport
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.domain.rates import calls
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.formulation.extraction import graph_plan
from jigsaw_triton.planner.placement.greedy import greedy
from jigsaw_triton.planner.search.attempt import Attempt
from jigsaw_triton.planner.search.choices import least_together, replicas
from jigsaw_triton.planner.search.survivors import lost_capacity, survival
from jigsaw_triton.planner.solver.deadline import Deadline
from jigsaw_triton.planner.validation.validate import violations
from jigsaw_triton.profiles.table import ProfileTable

ConfigurationsOf = Callable[[Workload], TaskConfigurations]
"""Function that returns all configurations of a graph."""


class _Part(NamedTuple):
    """Replicas of one graph.

    Attributes:
        counts: Number of replicas of each configuration, all of them.
        calls: (graph, task, variant) -> calls for a request.
        candidates: Configurations that were considered.
        least: Lower bound on the cost of the graph; 0 if none is known.
    """

    counts: Mapping[Configuration, int]
    calls: Mapping[tuple[str, str, str], float]
    candidates: TaskConfigurations
    least: float


def constructed(attempt: Attempt) -> Plan | None:
    """Returns a feasible plan for a problem whose solve ran out of time: with what runs, or else from nothing."""

    def configurations(workload: Workload) -> TaskConfigurations:
        return attempt.configurations[workload.graph.name]

    problem = attempt.problem
    for running in (problem.running, None) if problem.running is not None else (None,):
        found = first_plan(replace(problem, running=running), attempt.options, configurations)
        if found is not None:
            return found
    return None


def first_plan(problem: Problem, options: Options, every: ConfigurationsOf) -> Plan | None:
    """Returns a feasible plan; None if the construction finds none.

    Args:
        problem: Prepared problem.
        options: Checked options of planning.
        every: All configurations of a graph, which take longer to compute than those of its running replicas.
    """
    time = Deadline(math.inf)
    staying = _staying(problem)
    if options.ideal_packing or any(len(placed.models) > 1 for layout in staying.values() for placed in layout):
        return None
    existing, full = replicas(problem), set[str]()
    while True:
        parts = _parts(problem, options, every, existing, full)
        if parts is None:
            return None
        counts = {c: n for part in parts.values() for c, n in part.counts.items()}
        more = {c: n - existing[c.replica] for c, n in counts.items() if n > existing[c.replica]}
        placed = greedy(problem.cluster, more, staying)
        if not placed.unplaced:
            break
        boards = {c.board for c in placed.unplaced}
        if boards <= full:
            return None
        full |= boards
    loads = by_load(counts, {name: part.candidates for name, part in parts.items()})
    rates = {key: rate for part in parts.values() for key, rate in part.calls.items()}
    even = "T" not in options.features
    slices = sum(n * c.compute_slices for c, n in counts.items())
    cost = sum(n * c.cost for c, n in counts.items())
    least = min(cost, least_together(part.least for part in parts.values()))
    plan = Plan(
        graphs={w.graph.name: graph_plan(w, counts, rates, loads=loads, even=even) for w in problem.workloads},
        gpus=placed.gpus,
        slices_used=slices,
        slices_total=problem.cluster.compute_slices,
        gpus_used=len(placed.gpus),
        features=options.features,
        formulation=options.formulation,
        latency_model=options.latency_model,
        solver=SolverReport(CONSTRUCTED, "feasible", round(time.spent_s, 3), (cost - least) / cost),
        cost=problem.cost_of(placed.gpus),
    )
    if violations(plan, problem, options) or any(lost_capacity(plan, problem, options)):
        return None
    return replace(plan, survival=survival(plan, problem, options))


def _parts(
    problem: Problem, options: Options, every: ConfigurationsOf, existing: Mapping[Replica, int], full: Collection[str]
) -> dict[str, _Part] | None:
    """Returns the replicas of each graph, none of them new on boards without room; None if a graph has none."""
    parts: dict[str, _Part] = {}
    for workload in problem.workloads:
        planned = problem.running.graphs.get(workload.graph.name) if problem.running is not None else None
        if planned is None:
            part = _chosen(workload, every(workload), full)
        else:
            table = problem.profiles.get(workload.graph.name, ProfileTable(()))
            running = available(workload.graph, table, problem.boards, options, existing, others=False)
            part = _grown(workload, planned, existing, running)
        if part is None:
            return None
        parts[workload.graph.name] = part
    return parts


def _staying(problem: Problem) -> dict[GpuId, tuple[PlacedSlice, ...]]:
    """Returns the running slices of the problem's graphs, without standby, on GPUs that the cluster still has."""
    boards = {gpu.id: gpu.board.name for gpu in problem.cluster.gpus}
    names = {w.graph.name for w in problem.workloads}
    return {
        gpu.id: tuple(
            replace(placed, standby=()) for placed in gpu.layout if {model.graph for model in placed.models} <= names
        )
        for gpu in (problem.running.gpus if problem.running is not None else ())
        if boards.get(gpu.id) == gpu.model
    }


def _grown(
    workload: Workload, planned: GraphPlan, existing: Mapping[Replica, int], found: TaskConfigurations
) -> _Part | None:
    """Adds replicas to those that run, with the running plan's budgets and shares of variants."""
    graph, counts = workload.graph, dict[Configuration, int]()
    if planned.tasks.keys() != graph.tasks.keys():
        return None
    rates = _calls(graph, planned.mix)
    for name, task in planned.tasks.items():
        needed = {variant: workload.demand_rps * rates[graph.name, name, variant] for variant in task.mix}
        run = {c.replica: existing[c.replica] for c in found[name] if existing.get(c.replica)}
        within = [c for c in found[name] if c.replica in run and c.latency_ms <= task.budget_ms * (1 + TOLERANCE)]
        enough = _enough(needed, run, within)
        if enough is None:
            return None
        counts |= enough
    return _Part(counts, rates, found, 0.0)


def _enough(
    needed_rps: Mapping[str, float], run: Mapping[Replica, int], found: list[Configuration]
) -> dict[Configuration, int] | None:
    """Returns the replicas of a task that run and those that it needs beside them; None if no range has room for them.

    Args:
        needed_rps: Variant -> calls a second.
        run: Running replicas of the task.
        found: Configurations of these replicas within the task's budget.
    """
    for least, most in sorted({c.replica_range for c in found}):
        busiest: dict[Replica, Configuration] = {}
        for c in sorted((c for c in found if c.replica_range == (least, most)), key=lambda c: c.utilisation):
            busiest[c.replica] = c
        if not run.keys() <= busiest.keys():
            continue
        counts = {busiest[replica]: n for replica, n in run.items()}
        for variant, rps in needed_rps.items():
            alike = [c for c in busiest.values() if c.variant == variant]
            if not alike:
                return None
            cheapest = max(alike, key=lambda c: (c.throughput_rps / c.cost, c))
            carried_rps = sum(n * c.throughput_rps for c, n in counts.items() if c.variant == variant)
            if (added := _replicas(rps - carried_rps, cheapest)) > 0:
                counts[cheapest] = counts.get(cheapest, 0) + added
        if least <= sum(counts.values()) <= most:
            return counts
    return None


def _chosen(workload: Workload, found: TaskConfigurations, full: Collection[str]) -> _Part | None:
    """Returns one configuration for each task within the levels of the lower bound, as often as it is needed.

    Args:
        workload: Graph and demand.
        found: All configurations of the graph.
        full: Boards to avoid.
    """
    graph, counts, mix = workload.graph, dict[Configuration, int](), dict[str, dict[str, float]]()
    # An accuracy that holds for each request also holds on average.
    floor = replace(graph, slo=replace(graph.slo, accuracy_mode="floor"))
    usable = {task: tuple(c for c in of if c.board not in full) for task, of in found.items()}
    if not all(usable.values()):
        return None
    bounds = least_slices(replace(workload, graph=floor), usable)
    if math.isinf(bounds.least):
        return None
    apart = excluded(graph)
    for name in graph.tasks:
        most_ms, most_loss = bounds.witness[name]
        rps = workload.demand_rps * _calls_of(graph, name, mix)
        options = [
            (n, c)
            for c in usable[name]
            if c.latency_ms <= most_ms and c.loss <= most_loss and not _barred(c, mix, apart)
            if (n := max(1, c.replica_range[0], _replicas(rps, c))) <= c.replica_range[1]
        ]
        if not options:
            return None
        n, c = min(options, key=lambda option: (option[0] * option[1].cost, option[1].loss, option[1]))
        counts[c], mix[name] = n, {c.variant: 1.0}
    least = least_slices(workload, found).least if full else bounds.least
    return _Part(counts, _calls(graph, mix), found, least if floor == graph else 0.0)


def _barred(c: Configuration, mix: Mapping[str, Mapping[str, float]], apart: Collection[tuple[Use, Use]]) -> bool:
    """Returns True if a configuration's variant must not serve beside one that was chosen for another task."""
    chosen = {(task, variant) for task, shares in mix.items() for variant in shares}
    return any((c.task, c.variant) in pair and chosen & set(pair) for pair in apart)


def _replicas(rps: float, c: Configuration) -> int:
    """Returns the number of replicas that carry a rate."""
    return math.ceil(rps / c.throughput_rps * (1 - TOLERANCE))


def _calls(graph: TaskGraph, mix: Mapping[str, Mapping[str, float]]) -> dict[tuple[str, str, str], float]:
    """Returns (graph, task, variant) -> calls for a request, if each task's calls have these shares of variants."""
    return {
        (graph.name, task, variant): share * _calls_of(graph, task, mix)
        for task, shares in mix.items()
        for variant, share in shares.items()
    }


def _calls_of(graph: TaskGraph, task: str, mix: Mapping[str, Mapping[str, float]]) -> float:
    """Returns the calls of a task for a request, by the shares of the tasks before it."""
    rule = calls(graph, graph.tasks[task])
    if rule.source is None:
        return rule.factor
    weight = sum(share * rule.weight(graph, variant) for variant, share in mix[rule.source].items())
    return weight * _calls_of(graph, rule.source, mix)
