"""Plans and demands that the processors of the machine carry, if slices share them.

The program takes the processor time of each variant's most economical configuration, and the processors of all machines
together. What a plan really needs is known once it is made.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TypeVar

from jigsaw_triton.errors import UnplacedError
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.domain.survival import domains
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.search import diagnosis
from jigsaw_triton.planner.search.attempt import Attempt, OutOfTimeError
from jigsaw_triton.planner.search.best_plan import best_plan
from jigsaw_triton.planner.search.demand_scaling import with_largest_demand
from jigsaw_triton.planner.search.feasibility import feasible
from jigsaw_triton.planner.search.planning import gap_by, unproven
from jigsaw_triton.planner.search.survivors import processor_loads, within_processors
from jigsaw_triton.planner.solver.deadline import Deadline

_ROUNDS = 6
"""Largest number of plans that are made to find the demand that processors carry."""

Found = TypeVar("Found")


def carried_plan(attempt: Attempt) -> Plan | None:
    """Returns the plan, with capacities that the processors of the machine carry; None if there is none.

    Raises:
        OverloadedProcessorError: The processors do not carry the demand.
        OutOfTimeError: The time limit passed first.
    """
    time = Deadline(attempt.options.time_limit_s)
    plan = best_plan(attempt, time)
    return None if plan is None else _carried(attempt, plan, time)


def has_carried_plan(attempt: Attempt) -> bool | None:
    """Returns True if there is a plan, and None if the time limit ended the search.

    What the processors of the machine carry depends on the plan, so one is made if slices share them.
    """
    found = feasible(attempt)
    if not found or attempt.problem.cluster.processors is None or attempt.options.ideal_packing:
        return found
    try:
        return carried_plan(attempt) is not None
    except OutOfTimeError:
        return None


def _carried(attempt: Attempt, plan: Plan, time: Deadline) -> Plan:
    """Returns the plan, or another that the processors of the machine carry, with the capacities that they carry.

    If a plan needs more processors than there are, variants that carry more are tried. Their plan is not proven
    optimal: other variants may carry the demand on fewer slices, or be more accurate.

    Raises:
        OverloadedProcessorError: The processors do not carry the demand.
        OutOfTimeError: The deadline passed first.
    """
    loads = processor_loads(plan, attempt.problem)
    if not any(load.exceeded for load in loads):
        return within_processors(plan, loads)
    for other in _lighter(attempt, time):
        loads = processor_loads(other, attempt.problem)
        if not any(load.exceeded for load in loads):
            return within_processors(unproven(other, gap_by(plan, other, attempt)), loads)
    raise diagnosis.overloaded(attempt.problem, loads[0].processors, min(load.scale() for load in loads))


def _lighter(attempt: Attempt, time: Deadline) -> Iterator[Plan]:
    """Yields plans that may need fewer processors, the more accurate ones first.

    Raises:
        OutOfTimeError: The deadline passed.
    """
    if attempt.options.objective == "accuracy":
        options = replace(attempt.options, objective="slices", change_price=0.0)
        yield from filter(None, [best_plan(replace(attempt, options=options), time)])
    largest, _ = carried_demand(attempt, _graphs(attempt), time)
    variants = replace(attempt, configurations=largest.configurations, variants=largest.variants)
    yield from filter(None, [best_plan(variants, time)])


def required(attempt: Attempt, found: Found | None) -> Found:
    """Returns what was found, or raises why there is none."""
    if found is not None:
        return found
    cluster = attempt.problem.cluster
    if cluster.processors is not None:
        slices_alone = replace(attempt, problem=replace(attempt.problem, cluster=replace(cluster, processors=None)))
        if feasible(slices_alone):
            raise diagnosis.overloaded(attempt.problem, cluster.processors, _carried_scale(attempt))
    raise diagnosis.infeasible(attempt)


def _carried_scale(attempt: Attempt) -> float:
    """Returns the scale of all demands that the processors of the machine carry; 0 if they carry none."""
    found = with_largest_demand(attempt, _graphs(attempt))
    if found is None:
        return 0.0
    first = attempt.problem.workloads[0]
    return found[0].workloads[0].demand_rps / first.demand_rps


def carried_demand(attempt: Attempt, growing: Collection[str], time: Deadline | None = None) -> tuple[Attempt, float]:
    """Returns the attempt with the largest demands, and their relative gap; 0 if proven.

    Args:
        attempt: Attempt whose demands give the proportions.
        growing: Names of the graphs whose demand grows.
        time: Deadline; None if the time limit of the options holds for the largest demand, and again for the plans
            that show if processors carry it.
    """
    limited = attempt if time is None else attempt.limited(time.left_s)
    problem, gap = required(attempt, with_largest_demand(limited, growing))
    if attempt.problem.survive and domains(attempt.problem.cluster).merged:
        gap = max(gap, _gap_to_unprotected(attempt, problem, growing))
    time = time or Deadline(attempt.options.time_limit_s)
    attempt, scale = _within_processors(replace(attempt, problem=problem), growing, time)
    # The upper bound is the capacity without the limit of processors, so that limit's reduction is part of the gap.
    return attempt, max(gap, 1 - scale)


def _graphs(attempt: Attempt) -> set[str]:
    return {w.graph.name for w in attempt.problem.workloads}


def _gap_to_unprotected(attempt: Attempt, largest: Problem, growing: Collection[str]) -> float:
    """Returns the relative distance of demands to those that the cluster carries if it need not survive a loss.

    Infinite if the time limit left these open.
    """
    try:
        free = with_largest_demand(attempt.unprotected(), growing)
    except OutOfTimeError:
        return math.inf
    assert free is not None, "a plan that survives is one that need not"
    pairs = zip(free[0].workloads, largest.workloads, strict=True)
    return (1 + free[1]) * max(more.demand_rps / less.demand_rps for more, less in pairs) - 1


def _within_processors(attempt: Attempt, growing: Collection[str], time: Deadline) -> tuple[Attempt, float]:
    """Returns the attempt with demands of growing graphs that the processors of the machine carry, and their scale.

    If they do not carry what the program allows, only the variants that carry most are left: with less demand there
    would be room for more accurate ones. The processor time of a call depends on the plan, so several plans are made.
    If the placement of the paper's formulation fails, the processors that the demands need are not known.

    Raises:
        OverloadedProcessorError: The processors do not carry the other graphs.
    """
    total = 1.0
    for _ in range(_ROUNDS if attempt.problem.cluster.processors is not None else 0):
        try:
            plan = required(attempt, best_plan(attempt, time))
        except UnplacedError:
            break
        loads = processor_loads(plan, attempt.problem)
        if not any(load.exceeded for load in loads):
            break
        scale = min(load.scale(growing) for load in loads)
        if scale == 0:
            raise diagnosis.overloaded(attempt.problem, loads[0].processors, min(load.scale() for load in loads))
        attempt, total = attempt.like(plan).scaled(growing, scale * (1 - TOLERANCE)), total * scale
    return attempt, total
