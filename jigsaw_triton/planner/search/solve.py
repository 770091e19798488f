"""Entry points of the planner: from a problem to its plan, its largest demand, or why there is none.

Each entry point checks its arguments, and answers with the preferred solver, or with the other one if that fails. The
answer composes the steps of this package: `best_plan` finds the optimum (`allotment`) and turns it into a plan
(`planning`), `carried` limits plans and demands to what processors carry, `demand_scaling` finds the largest demand,
`feasibility` says if there is a plan, and `diagnosis` why there is none.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

from jigsaw_triton.errors import InfeasibleError, JigsawError, OverloadedProcessorError, UnplacedError
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.candidates.configurations import TaskConfigurations
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.allotment import Allotment, best_allotment
from jigsaw_triton.planner.search.attempt import Attempt
from jigsaw_triton.planner.search.bisection import bisect
from jigsaw_triton.planner.search.carried import carried_demand, carried_plan, has_carried_plan, required
from jigsaw_triton.planner.search.checked_configurations import checked_configurations
from jigsaw_triton.planner.search.first_plan import first_plan
from jigsaw_triton.planner.search.survivors import processor_loads, within_processors
from jigsaw_triton.planner.solver.deadline import Deadline
from jigsaw_triton.planner.solver.program import SolverName
from jigsaw_triton.planner.solver.solver import (
    Solver,
    SolverFailure,
    SolverProcess,
)

_PLACING_GAP = 1 / 256
"""Absolute gap of the largest part of a demand that the paper's greedy placement finds a place for."""

Found = TypeVar("Found")

SolverFactory = Callable[[SolverName], AbstractContextManager[Solver]]
"""Function that makes the solver of a name, for use in a `with` statement."""

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
        return _first_valid(problem, options, solvers, carried_plan)
    except InfeasibleError:
        return None


def has_plan(problem: Problem, options: Options = DEFAULTS, *, solvers: SolverFactory = SolverProcess) -> bool | None:
    """Returns True if there is a plan, before placement, and None if the time limit left that open.

    Takes less time than making the plan, and raises the same errors except for `InfeasibleError`.
    """
    try:
        return _first_valid(problem, options, solvers, has_carried_plan)
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
        largest, gap = carried_demand(attempt, _growing(attempt.problem, scaled))
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
        growing = _growing(attempt.problem, scaled)
        largest, gap = carried_demand(attempt, growing)
        try:
            plan = _plan(largest)
        except (UnplacedError, OverloadedProcessorError) as error:
            lowered = _lowered(largest, growing)
            if lowered is None:
                raise error
            plan = lowered
        # The search maximised the demand carried, and has not proven that fewer slices cannot carry it.
        return replace(plan, solver=replace(plan.solver, status="feasible", gap=gap)) if gap > 0 else plan

    return _first_valid(problem, options, solvers, answer)


def _plan(attempt: Attempt) -> Plan:
    """Returns the plan, with capacities that the processors of the machine carry.

    Raises:
        InfeasibleError: There is no plan, or the processors do not carry the demand.
    """
    return required(attempt, carried_plan(attempt))


def _allotment(attempt: Attempt) -> Allotment:
    return required(attempt, best_allotment(attempt.apart(), Deadline(attempt.options.time_limit_s)))


def _lowered(attempt: Attempt, growing: Collection[str]) -> Plan | None:
    """Returns the plan of the largest part of the demand that can be placed and carried; None if there is none."""
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
