"""Entry points of the planner: from a problem to its plan, its largest demand, or why there is none.

Each entry point checks its arguments, and answers with the preferred solver, or with the other one if that fails. The
answer composes the steps of this package: `allotment` finds the optimum, `planning` turns it into a plan,
`demand_scaling` finds the largest demand, `feasibility` says if there is a plan, and `diagnosis` why there is none.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

from jigsaw_triton.errors import InfeasibleError, JigsawError, OverloadedProcessorError, UnplacedError
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.candidates.configurations import TaskConfigurations
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.domain.survival import domains
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.search import diagnosis
from jigsaw_triton.planner.search.allotment import Allotment, best_allotment
from jigsaw_triton.planner.search.attempt import Attempt, OutOfTimeError
from jigsaw_triton.planner.search.bisection import bisect
from jigsaw_triton.planner.search.checked_configurations import checked_configurations
from jigsaw_triton.planner.search.demand_scaling import with_largest_demand
from jigsaw_triton.planner.search.feasibility import feasible
from jigsaw_triton.planner.search.first_plan import constructed, first_plan
from jigsaw_triton.planner.search.planning import gap_by, plan_of, spread_over_nodes, unproven
from jigsaw_triton.planner.search.survivors import processor_loads, within_processors
from jigsaw_triton.planner.solver.deadline import Deadline
from jigsaw_triton.planner.solver.program import SolverName
from jigsaw_triton.planner.solver.solver import (
    Solver,
    SolverFailure,
    SolverProcess,
)

_ROUNDS = 6
"""Largest number of plans that are made to find the demand that processors carry."""

_PLACING_GAP = 1 / 256
"""Absolute gap of the largest part of a demand that the paper's greedy placement finds a place for."""

_UNPROTECTED_SHARE = 0.3
"""Share of the time limit for the plan that need not survive a loss, which shows what surviving costs."""

Found = TypeVar("Found")

SolverFactory = Callable[[SolverName], AbstractContextManager[Solver]]
"""Makes the solver of a name, for use in a `with` statement."""

DEFAULTS = Options()


@dataclass(frozen=True, slots=True)
class LargestDemand:
    """Largest demand that a cluster carries.

    Attributes:
        rps: Requests a second of each graph.
        proven: True if no larger demand is possible, within a relative gap of 1e-4; False if time ran out, or if
            processors that slices share limit the demand.
    """

    rps: Mapping[str, float]
    proven: bool


def make_plan(problem: Problem, options: Options = DEFAULTS, *, solvers: SolverFactory = SolverProcess) -> Plan:
    """Makes the best plan by `options.objective`: by default, the one of the least cost.

    On boards of one kind, that is the one of the fewest compute slices. Ties are decided by the cost of the GPUs in use
    (on boards of one kind, their number), then the highest accuracy, then the most running replicas that
    stay. The same problem gives the same plan, except for `plan.solver.seconds` and unless the time limit ends the
    search. Blocks for tenths of a second up to the time limit, and runs the solver in a process of its own.

    Args:
        problem: Graphs, demands, cluster and profiles.
        options: Options of planning.
        solvers: Factory of solvers by name; it may be called twice.

    Raises:
        InputError: The problem or the options are invalid.
        InfeasibleError: No plan meets the requirements; the reasons say which, and what could be met.
        JigsawError: No plan was found within the time limit, or no solver gave a valid answer.
    """
    return _first_valid(problem, options, solvers, _plan)


def make_first_plan(problem: Problem, options: Options = DEFAULTS) -> Plan | None:
    """Makes a feasible plan within tenths of a second, without a solver, if a simple construction finds one.

    Running replicas stay where they are, and graphs that run already take hundredths of a second each. The plan usually
    takes a few slices more than that of `make_plan`.

    Raises:
        InputError: The problem or the options are invalid.
        InfeasibleError: A graph that does not run yet has no plan, whatever its demand.
    """
    options, problem = options.checked(), problem.prepared(options)

    def every(workload: Workload) -> TaskConfigurations:
        return checked_configurations(replace(problem, workloads=(workload,)), options)[workload.graph.name]

    plan = first_plan(problem, options, every)
    loads = processor_loads(plan, problem) if plan is not None else ()
    return None if plan is None or any(load.exceeded for load in loads) else within_processors(plan, loads)


def find_plan(problem: Problem, options: Options = DEFAULTS, *, solvers: SolverFactory = SolverProcess) -> Plan | None:
    """Makes the plan of `make_plan`, or returns None if there is none, which takes less time than a diagnosis."""
    try:
        return _first_valid(problem, options, solvers, _carried_if_any)
    except InfeasibleError:
        return None


def has_plan(problem: Problem, options: Options = DEFAULTS, *, solvers: SolverFactory = SolverProcess) -> bool | None:
    """Returns True if there is a plan, before placement, and None if the time limit left that open.

    Takes less time than making the plan, and raises the same errors except for `InfeasibleError`.
    """
    try:
        return _first_valid(problem, options, solvers, _feasible)
    except InfeasibleError:
        return False


def allot(problem: Problem, options: Options = DEFAULTS, *, solvers: SolverFactory = SolverProcess) -> Allotment:
    """Finds the allotment of `make_plan` without placing it; raises the same errors, except for `UnplacedError`."""
    return _first_valid(problem, options, solvers, _allotment)


def largest_demand(
    problem: Problem,
    options: Options = DEFAULTS,
    *,
    scaled: Collection[str] | None = None,
    solvers: SolverFactory = SolverProcess,
) -> LargestDemand:
    """Finds the demand of `make_largest_plan` without placing its plan; arguments and errors are the same."""

    def answer(attempt: Attempt) -> LargestDemand:
        largest, gap = _largest(attempt, scaled)
        return LargestDemand({w.graph.name: w.demand_rps for w in largest.problem.workloads}, proven=gap == 0)

    return _first_valid(problem, options, solvers, answer)


def make_largest_plan(
    problem: Problem,
    options: Options = DEFAULTS,
    *,
    scaled: Collection[str] | None = None,
    solvers: SolverFactory = SolverProcess,
) -> Plan:
    """Makes the plan of the largest demand that the cluster carries, within a relative gap of 1e-4.

    If the time limit left open whether a larger demand is possible, the plan is `feasible`, with the demand's gap. So
    it is if slices share processors that carry less than the slices. If the paper's placement fails at that demand, the
    plan is for the largest part of it that can be placed, within 1/256.

    Args:
        problem: Problem whose demands give the proportions in which the graphs grow.
        options: Options of planning. The time limit holds for each of two solves.
        scaled: Names of the graphs that grow; None for all. The others keep their demands.
        solvers: Factory of solvers by name; it may be called twice.

    Raises:
        InputError: The problem or the options are invalid.
        InfeasibleError: No plan meets the requirements at any demand.
        JigsawError: No plan was found within the time limit, or no solver gave a valid answer.
    """

    def answer(attempt: Attempt) -> Plan:
        largest, gap = _largest(attempt, scaled)
        try:
            plan = _plan(largest)
        except (UnplacedError, OverloadedProcessorError) as error:
            lowered = _lowered(largest, scaled)
            if lowered is None:
                raise error
            plan = lowered
        # How few slices carry the demand was not asked.
        return replace(plan, solver=replace(plan.solver, status="feasible", gap=gap)) if gap > 0 else plan

    return _first_valid(problem, options, solvers, answer)


def _plan(attempt: Attempt) -> Plan:
    """Returns the plan, with capacities that the processors of the machine carry.

    Raises:
        InfeasibleError: There is no plan, or the processors do not carry the demand.
    """
    return _required(attempt, _carried_if_any(attempt))


def _carried_if_any(attempt: Attempt) -> Plan | None:
    time = Deadline(attempt.options.time_limit_s)
    plan = _plan_if_any(attempt, time)
    return None if plan is None else _carried(attempt, plan, time)


def _feasible(attempt: Attempt) -> bool | None:
    """Returns True if there is a plan, and None if the time limit ended the search.

    What the processors of the machine carry depends on the plan, so one is made if slices share them.
    """
    found = feasible(attempt)
    if not found or attempt.problem.cluster.processors is None or attempt.options.ideal_packing:
        return found
    try:
        return _carried_if_any(attempt) is not None
    except OutOfTimeError:
        return None


def _carried(attempt: Attempt, plan: Plan, time: Deadline) -> Plan:
    """Returns the plan, or another that the processors of the machine carry, with the capacities that they carry.

    The program takes the processor time of each variant's most economical configuration, and the processors of all
    machines together. If a plan needs more than there are, variants that carry more are tried. Their plan is not proven
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
        yield from filter(None, [_plan_if_any(replace(attempt, options=options), time)])
    largest, _ = _largest(attempt, None, time)
    variants = replace(attempt, configurations=largest.configurations, variants=largest.variants)
    yield from filter(None, [_plan_if_any(variants, time)])


def _plan_if_any(attempt: Attempt, time: Deadline) -> Plan | None:
    """Returns the plan, made before the deadline; None if there is none.

    Raises:
        OutOfTimeError: The deadline passed first.
    """
    if time.over:
        raise OutOfTimeError(attempt.options.time_limit_s)
    unprotected = _unprotected(attempt, time) if attempt.problem.survive else None
    try:
        allotment = best_allotment(attempt.apart(), time)
    except OutOfTimeError:
        plan = constructed(attempt)
        if plan is None:
            raise
        return plan
    if allotment is None:
        return None
    if attempt.problem.survive and domains(attempt.problem.cluster).merged:
        # Groups of domains are a stricter requirement; only the plan without it bounds the cost from below.
        by_cost = attempt.options.objective == "slices" and not attempt.options.change_price
        known = unprotected.outcome.stages[0].bound if unprotected is not None and by_cost else 0.0
        allotment = allotment.with_bound(known)
    return spread_over_nodes(plan_of(attempt.apart(), allotment, time, unprotected), attempt, time)


def _unprotected(attempt: Attempt, time: Deadline) -> Allotment | None:
    """Returns the best allotment that need not survive a loss; None if there is none, or if it takes too long."""
    try:
        return best_allotment(attempt.unprotected(), Deadline(_UNPROTECTED_SHARE * time.left_s))
    except OutOfTimeError:
        return None


def _allotment(attempt: Attempt) -> Allotment:
    return _required(attempt, best_allotment(attempt.apart(), Deadline(attempt.options.time_limit_s)))


def _required(attempt: Attempt, found: Found | None) -> Found:
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
    found = with_largest_demand(attempt, {w.graph.name for w in attempt.problem.workloads})
    if found is None:
        return 0.0
    first = attempt.problem.workloads[0]
    return found[0].workloads[0].demand_rps / first.demand_rps


def _largest(attempt: Attempt, scaled: Collection[str] | None, time: Deadline | None = None) -> tuple[Attempt, float]:
    """Returns the attempt with the largest demands, and their relative gap; 0 if proven.

    Args:
        attempt: Its problem's demands give the proportions.
        scaled: Names of the graphs that grow; None for all.
        time: Deadline; None if the time limit of the options holds for the largest demand, and again for the plans
            that show if processors carry it.
    """
    growing = _growing(attempt.problem, scaled)
    limited = attempt if time is None else attempt.limited(time.left_s)
    problem, gap = _required(attempt, with_largest_demand(limited, growing))
    if attempt.problem.survive and domains(attempt.problem.cluster).merged:
        gap = max(gap, _gap_to_unprotected(attempt, problem, growing))
    time = time or Deadline(attempt.options.time_limit_s)
    attempt, scale = _within_processors(replace(attempt, problem=problem), growing, time)
    # Only the capacity that the program allows is known as an upper bound.
    return attempt, max(gap, 1 - scale)


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
            plan = _required(attempt, _plan_if_any(attempt, time))
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


def _lowered(attempt: Attempt, scaled: Collection[str] | None) -> Plan | None:
    """Returns the plan of the largest part of the demand that can be placed and carried; None if there is none."""
    growing = _growing(attempt.problem, scaled)
    plans: dict[float, Plan] = {}

    def placed(scale: float) -> bool:
        try:
            plans[scale] = _plan(attempt.scaled(growing, scale))
        except (UnplacedError, OverloadedProcessorError):
            return False
        return True

    largest, _ = bisect(placed, 0.0, 1.0, abs_tol=_PLACING_GAP)
    return plans.get(largest)


def _growing(problem: Problem, scaled: Collection[str] | None) -> set[str]:
    names = {w.graph.name for w in problem.workloads}
    return names if scaled is None else names & set(scaled)


def _first_valid(
    problem: Problem, options: Options, solvers: SolverFactory, answer: Callable[[Attempt], Found]
) -> Found:
    """Returns the answer with the preferred solver, or with the other one if that fails."""
    options, problem = options.checked(), problem.prepared(options)
    configurations = checked_configurations(problem, options)
    failures = []
    order: tuple[SolverName, SolverName] = ("highs", "cbc") if options.solver == "highs" else ("cbc", "highs")
    for name in order:
        try:
            with solvers(name) as solver:
                return answer(Attempt(problem, options, configurations, solver))
        except SolverFailure as failure:
            failures.append(str(failure))
    raise JigsawError("no solver gave a valid plan: " + "; ".join(failures), hint="report this with the input files")
