"""From a problem to its plan."""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

from jigsaw_triton.errors import InfeasibleError, InputError, JigsawError, UnplacedError
from jigsaw_triton.planner.candidates.configurations import TaskConfigurations, available, within_even_parts
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search import diagnosis
from jigsaw_triton.planner.search.allotment import Allotment, best_allotment
from jigsaw_triton.planner.search.attempt import Attempt
from jigsaw_triton.planner.search.bisection import bisect
from jigsaw_triton.planner.search.choices import replicas
from jigsaw_triton.planner.search.demand_scaling import with_largest_demand
from jigsaw_triton.planner.search.feasibility import feasible
from jigsaw_triton.planner.search.planning import plan_of
from jigsaw_triton.planner.solver.deadline import Deadline
from jigsaw_triton.planner.solver.program import SolverName
from jigsaw_triton.planner.solver.solver import (
    Solver,
    SolverFailure,
    SolverProcess,
)
from jigsaw_triton.profiles.table import ProfileTable

_PLACING_GAP = 1 / 256
"""Absolute gap of the scale at which the paper's greedy placement finds a place for everything."""

Found = TypeVar("Found")

SolverFactory = Callable[[SolverName], AbstractContextManager[Solver]]

DEFAULTS = Options()


@dataclass(frozen=True, slots=True)
class LargestDemand:
    """That a cluster carries.

    Attributes:
        rps: Graph -> requests a second.
        proven: Whether there is none larger, within a part in ten thousand; else the time limit came first.
    """

    rps: Mapping[str, float]
    proven: bool


def make_plan(problem: Problem, options: Options = DEFAULTS, *, solvers: SolverFactory = SolverProcess) -> Plan:
    """The plan of least compute slices.

    Among those of least GPUs; among those of most accuracy; among those the one that keeps most of what runs. The same
    problem gives the same plan, up to `plan.solver.seconds`, unless the time limit cuts the search short. Takes from
    tenths of a second up to the time limit and blocks meanwhile; starts a process and ends it.

    Args:
        problem: Graphs, demands, cluster, profiles.
        options: How to plan.
        solvers: Makes the solver of a name; tests put others in its place.

    Raises:
        InputError: The problem or the options make no sense.
        InfeasibleError: No plan meets the requirements; the reasons say which cannot be met and what could be.
        JigsawError: None was found within the time limit, or no solver gave a sound answer.
    """
    return _first_sound(problem, options, solvers, _plan)


def find_plan(problem: Problem, options: Options = DEFAULTS, *, solvers: SolverFactory = SolverProcess) -> Plan | None:
    """As `make_plan`; None where the solver finds that there is no plan, which takes less long than being told why."""
    try:
        return _first_sound(problem, options, solvers, _plan_if_any)
    except InfeasibleError:
        return None


def has_plan(problem: Problem, options: Options = DEFAULTS, *, solvers: SolverFactory = SolverProcess) -> bool | None:
    """Whether there is a plan, before any of it is placed; None where the time limit left that open.

    Takes less long than making one, and raises the same but for `InfeasibleError`.
    """
    try:
        return _first_sound(problem, options, solvers, feasible)
    except InfeasibleError:
        return False


def allot(problem: Problem, options: Options = DEFAULTS, *, solvers: SolverFactory = SolverProcess) -> Allotment:
    """What `make_plan` takes, not placed; it raises the same, but for what the paper's placement makes of it."""
    return _first_sound(problem, options, solvers, _allotment)


def largest_demand(
    problem: Problem,
    options: Options = DEFAULTS,
    *,
    scaled: Collection[str] | None = None,
    solvers: SolverFactory = SolverProcess,
) -> LargestDemand:
    """The demand of `make_largest_plan`, before any of it is placed; otherwise as there."""

    def answer(attempt: Attempt) -> LargestDemand:
        largest, gap = _largest(attempt, scaled)
        return LargestDemand({w.graph.name: w.demand_rps for w in largest.problem.workloads}, proven=gap == 0)

    return _first_sound(problem, options, solvers, answer)


def make_largest_plan(
    problem: Problem,
    options: Options = DEFAULTS,
    *,
    scaled: Collection[str] | None = None,
    solvers: SolverFactory = SolverProcess,
) -> Plan:
    """The plan of the largest demand that the cluster carries, within a part in ten thousand; otherwise as `make_plan`.

    Where the time limit left open whether there is a larger one, the plan is called feasible, with the demand's gap.
    Where the paper's placement fails at that demand, it is lowered to one at which it does not, in steps down to 1/256
    of what ideal packing carries.

    Args:
        problem: Its demands say in what proportion the graphs grow.
        options: How to plan. The time limit is of each of two solves.
        scaled: Graphs that grow, all where None; the others keep their demands.
        solvers: Makes the solver of a name.

    Raises:
        InputError: The problem or the options make no sense.
        InfeasibleError: No plan meets the requirements at any demand.
        JigsawError: None was found within the time limit, or no solver gave a sound answer.
    """

    def answer(attempt: Attempt) -> Plan:
        largest, gap = _largest(attempt, scaled)
        try:
            plan = _plan(largest)
        except UnplacedError as error:
            lowered = _lowered(largest, scaled)
            if lowered is None:
                raise error
            plan = lowered
        if gap > 0:
            return replace(plan, solver=replace(plan.solver, status="feasible", gap=max(gap, plan.solver.gap)))
        return plan

    return _first_sound(problem, options, solvers, answer)


def _plan(attempt: Attempt) -> Plan:
    return _required(attempt, _plan_if_any(attempt))


def _plan_if_any(attempt: Attempt) -> Plan | None:
    time = Deadline(attempt.options.time_limit_s)
    allotment = best_allotment(attempt, time)
    return None if allotment is None else plan_of(attempt, allotment, time)


def _allotment(attempt: Attempt) -> Allotment:
    return _required(attempt, best_allotment(attempt, Deadline(attempt.options.time_limit_s)))


def _required(attempt: Attempt, found: Found | None) -> Found:
    """Returns what was found, or raises why there is none."""
    if found is None:
        raise diagnosis.infeasible(attempt)
    return found


def _largest(attempt: Attempt, scaled: Collection[str] | None) -> tuple[Attempt, float]:
    """The attempt with the largest demands, and their relative gap; 0 if proven."""
    problem, gap = _required(attempt, with_largest_demand(attempt, _growing(attempt.problem, scaled)))
    return replace(attempt, problem=problem), gap


def _lowered(attempt: Attempt, scaled: Collection[str] | None) -> Plan | None:
    """The plan of the largest demand, found by bisection, that can be placed; None where there is none."""
    growing = _growing(attempt.problem, scaled)
    plans: dict[float, Plan] = {}

    def placed(scale: float) -> bool:
        try:
            plans[scale] = _plan(attempt.scaled(growing, scale))
        except UnplacedError:
            return False
        return True

    largest, _ = bisect(placed, 0.0, 1.0, abs_tol=_PLACING_GAP)
    return plans.get(largest)


def _growing(problem: Problem, scaled: Collection[str] | None) -> set[str]:
    names = {w.graph.name for w in problem.workloads}
    return names if scaled is None else names & set(scaled)


def _first_sound(
    problem: Problem, options: Options, solvers: SolverFactory, answer: Callable[[Attempt], Found]
) -> Found:
    """Returns the answer with the preferred solver, or with the other one if that fails."""
    options, problem = options.checked(), problem.prepared()
    configurations = _available(problem, options)
    failures = []
    order: tuple[SolverName, SolverName] = ("highs", "cbc") if options.solver == "highs" else ("cbc", "highs")
    for name in order:
        try:
            with solvers(name) as solver:
                return answer(Attempt(problem, options, configurations, solver))
        except SolverFailure as failure:
            failures.append(str(failure))
    raise JigsawError("no solver gave a sound plan: " + "; ".join(failures), hint="report this with the input files")


def _available(problem: Problem, options: Options) -> dict[str, TaskConfigurations]:
    """Graph name -> task -> configurations, having said what is impossible whatever the solver finds."""
    if options.share and problem.cluster.processes == "mps":
        raise InputError(
            "models that share a slice take turns, which processes under MPS do not",
            hint="leave out --share, or write `processes: streams` in cluster.yaml",
        )
    everything: dict[str, TaskConfigurations] = {}
    reasons: list[str] = []
    staying = replicas(problem)
    for workload in problem.workloads:
        graph = workload.graph
        table = problem.profiles.get(graph.name, ProfileTable(()))
        everything[graph.name] = available(graph, table, problem.boards, options, staying)
        reasons += diagnosis.missing_profiles(graph, table, problem.boards, everything[graph.name], options)
    if reasons:
        hint = diagnosis.missing_hint(problem.workloads, problem.profiles, problem.boards, options)
        raise InfeasibleError(reasons, hint=hint)
    for workload in problem.workloads:
        reasons += diagnosis.single_limits(workload.graph, everything[workload.graph.name])
    if reasons:
        raise InfeasibleError(reasons, hint="loosen the SLO, or profile faster or more accurate configurations")
    if "T" in options.features:
        return everything
    for workload in problem.workloads:
        reasons += diagnosis.even_limits(workload.graph, everything[workload.graph.name])
    if reasons:
        raise InfeasibleError(reasons, hint="loosen the SLO, or plan with the feature T")
    return {w.graph.name: within_even_parts(w.graph, everything[w.graph.name]) for w in problem.workloads}
