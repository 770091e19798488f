"""Diagnosis of infeasible problems: the first requirement that cannot be met, and what would help.

Requirements are checked in turn: profiles, latency or accuracy alone, both together, and last the size of the cluster.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Literal

from jigsaw_triton.errors import InfeasibleError, OverloadedProcessorError
from jigsaw_triton.gpus.model import Board, Cluster
from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.candidates.configurations import (
    Configuration,
    TaskConfigurations,
    accuracy_budget,
    available,
    loss,
    why_not,
)
from jigsaw_triton.planner.candidates.filters import even_parts, within_even_parts
from jigsaw_triton.planner.domain.accuracy import pair_tables
from jigsaw_triton.planner.domain.features import FEATURES
from jigsaw_triton.planner.domain.paths import longest_path, longest_through
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.domain.survival import condition, domains
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.formulation.exclusions import exclude, in_use
from jigsaw_triton.planner.formulation.incremental_levels import incremental_levels, path_ends
from jigsaw_triton.planner.search.attempt import Attempt
from jigsaw_triton.planner.search.demand_scaling import Scale, idle_scale, largest_scale, needs_bisection, rough_scale
from jigsaw_triton.planner.search.fewest_slices import fewest_slices
from jigsaw_triton.planner.solver.deadline import LEAST_S, Deadline
from jigsaw_triton.planner.solver.program import Draft
from jigsaw_triton.planner.solver.solver import Outcome, Solver, SolverFailure, solved
from jigsaw_triton.profiles.table import ProfileTable

_LOWER_SHARE = ", or lower the share of `survive`"
"""Further hint where a loss must leave a share of the demand."""


def missing_profiles(
    graph: TaskGraph, table: ProfileTable, boards: Sequence[Board], found: TaskConfigurations, options: Options
) -> list[str]:
    """Returns a reason for each task that has no configuration on these boards."""
    names = ", ".join(b.name for b in boards)
    reasons = []
    for task in (t for t, configurations in found.items() if not configurations):
        losses = {v.name: loss(graph.tasks[task], v.name) for v in graph.tasks[task].variants}
        profiled = [
            (row, board)
            for board in boards
            for row in table.rows(task=task, gpu=board.name)
            if row.key.variant in losses
        ]
        refusals = [
            reason
            for row, board in profiled
            if (reason := why_not(row, losses[row.key.variant], board, options)) is not None
        ]
        if not refusals and any(row.throughput_rps > 0 for row, _ in profiled):
            # The latency model has no load at which such profiles are consistent.
            refusals = ["the profiled throughput is several times what the profiled latencies allow"]
        if refusals:
            reasons.append(f"{graph.name}: task {task} has no usable configuration on {names} ({refusals[0]})")
        else:
            others = sorted({row.key.gpu for row in table.rows(task=task) if row.key.variant in losses})
            only = f", only on {', '.join(others)}" if others else ""
            reasons.append(f"{graph.name}: task {task} has no profile on {names}{only}")
    return reasons


def missing_hint(
    workloads: Sequence[Workload], profiles: Mapping[str, ProfileTable], boards: Sequence[Board], options: Options
) -> str:
    """Returns the hint for tasks without configurations: other options, if they allow any, or profiling."""
    freely = replace(options, features=FEATURES, formulation="exact")
    found = (available(w.graph, profiles.get(w.graph.name, ProfileTable(())), boards, freely) for w in workloads)
    if all(usable for configurations in found for usable in configurations.values()):
        return f"plan with all features ({FEATURES}) in the exact formulation, or profile what these options allow"
    return "measure it with `jigsaw-triton profile`"


def single_limits(graph: TaskGraph, found: TaskConfigurations) -> list[str]:
    """Returns a reason if no plan meets the latency, whatever the accuracy, and one for the reverse."""
    reasons = []
    fastest = {task: min(c.latency_ms for c in configs) for task, configs in found.items()}
    least_ms = max(longest_through(graph, fastest).values())
    if least_ms > graph.tasks_ms * (1 + TOLERANCE):
        path = " > ".join(longest_path(graph, fastest))
        reasons.append(
            f"{graph.name}: a latency of {_latency_words(graph)} is out of reach: along {path} even the fastest "
            f"configurations take {rounded_up(least_ms)} ms"
        )
    finest = {task: min(c.loss for c in configs) for task, configs in found.items()}
    least_loss = max(longest_through(graph, finest).values())
    if least_loss > accuracy_budget(graph) + TOLERANCE:
        path = " > ".join(longest_path(graph, finest))
        reasons.append(
            f"{graph.name}: an accuracy of {graph.slo.accuracy:g} is out of reach: along {path} the profiled variants "
            f"reach at most {rounded_down(math.exp(-least_loss))} of the best"
        )
    for table in pair_tables(graph):
        first, second = ({c.variant for c in found[task]} for task in table.tasks)
        least_loss = min(table.loss[pair] for pair in product(first, second))
        if least_loss > accuracy_budget(graph) + TOLERANCE and not reasons:
            reasons.append(
                f"{graph.name}: an accuracy of {graph.slo.accuracy:g} is out of reach: the profiled variants of "
                f"{' and '.join(table.tasks)} reach together at most {rounded_down(math.exp(-least_loss))} of the best"
            )
    return reasons


def even_limits(graph: TaskGraph, found: TaskConfigurations) -> list[str]:
    """Returns a reason for each task that cannot meet its even part of the SLO, its budget without the feature T."""
    reasons = []
    for task, configs in within_even_parts(graph, found).items():
        if not configs:
            part = even_parts(graph)[task]
            part_ms, part_accuracy = part * graph.tasks_ms, graph.slo.accuracy**part
            fine = [c for c in found[task] if c.loss <= part * accuracy_budget(graph) + TOLERANCE]
            reached = (
                f"the fastest takes {rounded_up(min(c.latency_ms for c in fine))} ms"
                if fine
                else "none is that accurate"
            )
            reasons.append(
                f"{graph.name}: without budgets over the task graph (T) task {task} gets "
                f"{rounded_down(part_ms)} ms and an accuracy of {rounded_up(part_accuracy)}: {reached}"
            )
    return reasons


def infeasible(attempt: Attempt) -> InfeasibleError:
    """Returns the error that says why there is no plan. Its profiles and single limits are known to allow one."""
    limit_s = max(LEAST_S, attempt.options.time_limit_s)
    survive, cluster = attempt.problem.cluster.survive, attempt.problem.cluster
    if survive is not None and domains(cluster).number == 1:
        reason = f"{condition(survive)}, but all GPUs are in one"
        return InfeasibleError([reason], hint=f"add GPUs in another {survive.loss_of}, or leave out `survive`")
    found = [
        conflict
        for w in attempt.problem.workloads
        if (conflict := _both_limits(w.graph, attempt.configurations[w.graph.name], attempt.solver, limit_s))
    ] or [_too_small(attempt)]
    return InfeasibleError([reason for reason, _ in found], hint="; ".join(hint for _, hint in found))


def overloaded(problem: Problem, processors: float, scale: float) -> OverloadedProcessorError:
    """Returns the error that the slices of this machine's processor suffice, but not the processors that they share.

    Args:
        problem: The problem.
        processors: Processors of each machine.
        scale: Scale of the demands that they carry.
    """
    parts = ", ".join(
        f"{w.graph.name} {rounded_down(scale * w.demand_rps)} of {w.demand_rps:g} requests/s" for w in problem.workloads
    )
    reason = f"the slices share {processors:g} processors, which carry at most {parts}"
    hint = f"lower the demand to {rounded_down(100 * scale)}% of it, or use a larger machine"
    if problem.cluster.survive is not None:
        reason += f" if {condition(problem.cluster.survive)}"
        hint += _LOWER_SHARE
    return OverloadedProcessorError([reason], hint=hint)


def _both_limits(
    graph: TaskGraph, found: TaskConfigurations, solver: Solver, time_limit_s: float
) -> tuple[str, str] | None:
    """Returns reason and hint if latency and accuracy can be met only one at a time; None if both can."""
    least_ms = _least(graph, found, "latency", solver, time_limit_s)
    if least_ms <= graph.tasks_ms * (1 + TOLERANCE):
        return None
    best = math.exp(-_least(graph, found, "accuracy", solver, time_limit_s))
    reason = (
        f"{graph.name}: a latency of {_latency_words(graph)} and an accuracy of {graph.slo.accuracy:g} cannot "
        f"be satisfied together: at this accuracy it takes at least {rounded_up(least_ms)} ms"
    )
    return (
        reason,
        f"raise latency_ms to {rounded_up(least_ms + graph.steps_ms)} or lower accuracy to {rounded_down(best)}",
    )


def _least(
    graph: TaskGraph,
    found: TaskConfigurations,
    what: Literal["latency", "accuracy"],
    solver: Solver,
    time_limit_s: float,
) -> float:
    """Returns the least latency in ms, or the least loss of accuracy, of the worst path that meets the other limit."""
    found = {task: _quickest(configs) for task, configs in found.items()}
    draft = Draft()
    use = {c: draft.integer(1) for configs in found.values() for c in configs}
    for configs in found.values():
        draft.at_least(1, [(use[c], 1) for c in configs])
    latency = {c: c.latency_ms / graph.tasks_ms for c in use}
    loss = {c: c.loss for c in use}
    limited, budget = (loss, accuracy_budget(graph) + 1e-9) if what == "latency" else (latency, 1.0)
    for end in _ends(draft, graph, found, use, limited):
        draft.at_most(budget, [(end, 1)])
    worst = draft.real()
    for end in _ends(draft, graph, found, use, latency if what == "latency" else loss):
        draft.at_least(0, [(worst, 1), (end, -1)])
    columns = {c: (column, 1.0) for c, column in use.items()}
    if what == "latency":
        exclude(draft, graph, columns)
    else:
        variants = in_use(draft, columns)
        for table in pair_tables(graph):
            for pair, lost in table.loss.items():
                one, other = (variants.get(part) for part in zip(table.tasks, pair, strict=True))
                if one is not None and other is not None:
                    draft.at_least(-lost, [(worst, 1), (one, -lost), (other, -lost)])
    draft.minimise([(worst, 1.0)], gap=1e-7)
    least = _feasible(solved(solver, draft.program(), time_limit_s)).stages[0].value
    return least * graph.tasks_ms if what == "latency" else least


def _quickest(configs: Sequence[Configuration]) -> tuple[Configuration, ...]:
    """Returns the configuration of least latency for each variant."""
    by_variant: dict[str, Configuration] = {}
    for c in sorted(configs, key=lambda c: c.latency_ms):
        by_variant.setdefault(c.variant, c)
    return tuple(by_variant.values())


def _latency_words(graph: TaskGraph) -> str:
    """Returns the latency of the SLO as text, with the part that is reserved for Python steps."""
    steps = f", less {graph.steps_ms:g} ms for Python steps," if graph.steps else ""
    return f"{graph.slo.latency_ms:g} ms{steps}"


def _ends(
    draft: Draft,
    graph: TaskGraph,
    found: TaskConfigurations,
    use: Mapping[Configuration, int],
    weight: Mapping[Configuration, float],
) -> list[int]:
    levels = {task: incremental_levels(draft, (weight[c] for c in configs)) for task, configs in found.items()}
    for c, column in use.items():
        if (gate := levels[c.task].gate(weight[c])) is not None:
            draft.at_most(0, [(column, 1), (gate, -1)])
    return path_ends(draft, graph, {task: level.weight for task, level in levels.items()})


def _too_small(attempt: Attempt) -> tuple[str, str]:
    """Returns reason and hint if the cluster is too small: the demand that it carries, and a size that suffices."""
    problem = attempt.problem
    every = {w.graph.name for w in problem.workloads}
    scale = rough_scale(attempt, every) if needs_bisection(attempt) else largest_scale(attempt, every)
    if scale is not None and scale.value >= 1 + 10 * TOLERANCE:
        raise SolverFailure(f"the problem was reported infeasible, but a plan carries {scale.value} times the demand")
    needed = _needed(attempt if scale is not None else attempt.scaled(every, idle_scale(problem, every)))
    return _too_small_words(problem.workloads, problem.cluster, scale, needed)


def _needed(attempt: Attempt) -> tuple[int, int] | None:
    """Returns the compute slices and GPUs of a plan on unlimited GPUs; None if the time limit left that open."""
    time, attempt = Deadline(attempt.options.time_limit_s), attempt.apart()
    found = fewest_slices(attempt.problem, attempt.candidates(), attempt.options, attempt.solver, time, "ideal")
    if found is None or not found[1].stages:
        return None
    model, outcome = found
    return model.slices(outcome.values), model.gpus(outcome.values)


def _too_small_words(
    workloads: Sequence[Workload], cluster: Cluster, scale: Scale | None, needed: tuple[int, int] | None
) -> tuple[str, str]:
    """Returns reason and hint.

    Args:
        workloads: Graphs and demands.
        cluster: Cluster that is too small.
        scale: Scale of the demands that it carries; None if it has no room for the tasks at any demand.
        needed: Compute slices and GPUs that suffice; None if the time limit left that open.
    """
    others = any(gpu.foreign for gpu in cluster.gpus)
    gpus = "more GPUs" if needed is None else _gpus(needed[1])
    gpus += " without MIG instances of others" if others else ""
    if scale is None:
        reason = "the cluster has no room for as many replicas as the tasks need within the SLO, at any demand"
        hint = f"give it {gpus}, or plan for fewer graphs at once"
    elif scale.value == 0:
        reason = "the demand exceeds the cluster; the time limit ended the search for the demand that it carries"
        hint = f"lower the demand, give the cluster {gpus}, or allow more time with --time-limit"
    else:
        most = "at most" if scale.gap == 0 else "at least"
        parts = ", ".join(
            f"{w.graph.name} {rounded_down(scale.value * w.demand_rps)} of {w.demand_rps:g} requests/s"
            for w in workloads
        )
        reason = f"the demand exceeds the cluster, which carries {most} {parts}"
        hint = f"lower the demand to {rounded_down(100 * scale.value)}% of it, or give the cluster {gpus}"
    if cluster.survive is not None:
        reason += f" if {condition(cluster.survive)}"
        hint += _LOWER_SHARE
    has = (
        f"it has {cluster.compute_slices} on {len(cluster.gpus)}{', around MIG instances of others' if others else ''}"
    )
    suffices = "" if needed is None else f"{needed[0]} compute slices on {_gpus(needed[1])} would suffice, "
    return f"{reason}: {suffices}{has}", hint


def _gpus(count: int) -> str:
    return f"{count} GPU{'' if count == 1 else 's'}"


def _feasible(outcome: Outcome) -> Outcome:
    if not outcome.stages:
        raise SolverFailure(f"the solver reported {outcome.status} for a program that has a solution")
    return outcome


def rounded_up(value: float) -> str:
    """Returns the value with four digits, rounded up."""
    return _rounded(value, math.ceil, 1 - 1e-6)


def rounded_down(value: float) -> str:
    """Returns the value with four digits, rounded down."""
    return _rounded(value, math.floor, 1 + 1e-9)


def _rounded(value: float, how: Callable[[float], int], leeway: float) -> str:
    if value <= 0:
        return "0"
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return f"{how(value / unit * leeway) * unit:.10g}"
