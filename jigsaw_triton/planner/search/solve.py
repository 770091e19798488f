"""From a problem to its plan."""

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

from jigsaw_triton.errors import InfeasibleError, InputError, JigsawError, UnplacedError
from jigsaw_triton.planner.candidates.configurations import (
    TaskConfigurations,
    available,
    within_even_parts,
)
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import MAX_DEMAND_RPS, Options, Problem, with_demand_scaled
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.search import diagnose
from jigsaw_triton.planner.search.choices import replicas
from jigsaw_triton.planner.search.demand_scaling import largest_scale, largest_scale_by_halving
from jigsaw_triton.planner.search.planning import Allotment, Planning
from jigsaw_triton.planner.solver.program import SolverName
from jigsaw_triton.planner.solver.solver import (
    Solver,
    SolverFailure,
    SolverProcess,
)
from jigsaw_triton.profiles.table import ProfileTable

_EXACT_FROM = 0.5
"""Solvers are exact to an absolute tolerance: a scale below this is not, but a good demand to scale from once more."""

_ROUNDS = 4

_PLACING_ROUNDS = 8
"""Of halving the demand's range where the paper's greedy placement fails."""

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
    options, problem = options.checked(), problem.prepared()
    everything = _available(problem, options)
    return _first_sound(options, solvers, lambda solver: Planning(problem, options, everything, solver).plan())


def find_plan(problem: Problem, options: Options = DEFAULTS, *, solvers: SolverFactory = SolverProcess) -> Plan | None:
    """As `make_plan`; None where the solver finds that there is no plan, which takes less long than being told why."""
    options, problem = options.checked(), problem.prepared()
    try:
        everything = _available(problem, options)
        return _first_sound(
            options, solvers, lambda solver: Planning(problem, options, everything, solver, told=False).plan()
        )
    except InfeasibleError:
        return None


def has_plan(problem: Problem, options: Options = DEFAULTS, *, solvers: SolverFactory = SolverProcess) -> bool | None:
    """Whether there is a plan, before any of it is placed; None where the time limit left that open.

    Takes less long than making one, and raises the same but for `InfeasibleError`.
    """
    options, problem = options.checked(), problem.prepared()
    try:
        everything = _available(problem, options)
    except InfeasibleError:
        return False
    return _first_sound(options, solvers, lambda solver: Planning(problem, options, everything, solver).exists())


def allot(problem: Problem, options: Options = DEFAULTS, *, solvers: SolverFactory = SolverProcess) -> Allotment:
    """What `make_plan` takes, not placed; it raises the same, but for what the paper's placement makes of it."""
    options, problem = options.checked(), problem.prepared()
    everything = _available(problem, options)
    return _first_sound(options, solvers, lambda solver: Planning(problem, options, everything, solver).allotment())


def largest_demand(
    problem: Problem,
    options: Options = DEFAULTS,
    *,
    scaled: Collection[str] | None = None,
    solvers: SolverFactory = SolverProcess,
) -> LargestDemand:
    """The demand of `make_largest_plan`, before any of it is placed; otherwise as there."""
    options, problem = options.checked(), problem.prepared()
    everything = _available(problem, options)

    def attempt(solver: Solver) -> LargestDemand:
        largest, gap = _largest(Planning(problem, options, everything, solver), scaled)
        return LargestDemand({w.graph.name: w.demand_rps for w in largest.workloads}, proven=gap == 0)

    return _first_sound(options, solvers, attempt)


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
    options, problem = options.checked(), problem.prepared()
    everything = _available(problem, options)

    def attempt(solver: Solver) -> Plan:
        largest, gap = _largest(Planning(problem, options, everything, solver), scaled)
        try:
            plan = Planning(largest, options, everything, solver).plan()
        except UnplacedError as error:
            lowered = _lowered(Planning(largest, options, everything, solver), scaled)
            if lowered is None:
                raise error
            plan = lowered
        if gap > 0:
            return replace(plan, solver=replace(plan.solver, status="feasible", gap=max(gap, plan.solver.gap)))
        return plan

    return _first_sound(options, solvers, attempt)


def _largest(planning: Planning, scaled: Collection[str] | None) -> tuple[Problem, float]:
    """The problem with demands as large as they can be, and by what part they may still be larger; 0 if proven."""
    growing, gap = _growing(planning.problem, scaled), math.inf
    if planning.by_halving:
        scale, gap = largest_scale_by_halving(planning, growing)
        return with_demand_scaled(planning.problem, growing, scale * (1 - TOLERANCE)), gap
    for _ in range(_ROUNDS):
        scale, gap = largest_scale(planning, growing)
        most = max(w.demand_rps for w in planning.problem.workloads if w.graph.name in growing)
        scale = min(scale, MAX_DEMAND_RPS / most)
        planning = replace(planning, problem=with_demand_scaled(planning.problem, growing, scale))
        if scale > _EXACT_FROM:
            break
    return with_demand_scaled(planning.problem, growing, 1 - TOLERANCE), gap


def _lowered(planning: Planning, scaled: Collection[str] | None) -> Plan | None:
    """The plan of the largest demand, found by halving, that can be placed; None where there is none."""
    growing = _growing(planning.problem, scaled)
    best, low, high = None, 0.0, 1.0
    for _ in range(_PLACING_ROUNDS):
        scale = (low + high) / 2
        try:
            best = replace(planning, problem=with_demand_scaled(planning.problem, growing, scale)).plan()
            low = scale
        except UnplacedError:
            high = scale
    return best


def _growing(problem: Problem, scaled: Collection[str] | None) -> set[str]:
    names = {w.graph.name for w in problem.workloads}
    return names if scaled is None else names & set(scaled)


def _first_sound(options: Options, solvers: SolverFactory, attempt: Callable[[Solver], Found]) -> Found:
    """What the solver asked for makes of an attempt, or the other one where that fails."""
    failures = []
    order: tuple[SolverName, SolverName] = ("highs", "cbc") if options.solver == "highs" else ("cbc", "highs")
    for name in order:
        try:
            with solvers(name) as solver:
                return attempt(solver)
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
        reasons += diagnose.missing_profiles(graph, table, problem.boards, everything[graph.name], options)
    if reasons:
        hint = diagnose.missing_hint(problem.workloads, problem.profiles, problem.boards, options)
        raise InfeasibleError(reasons, hint=hint)
    for workload in problem.workloads:
        reasons += diagnose.single_limits(workload.graph, everything[workload.graph.name])
    if reasons:
        raise InfeasibleError(reasons, hint="loosen the SLO, or profile faster or more accurate configurations")
    if "T" in options.features:
        return everything
    for workload in problem.workloads:
        reasons += diagnose.even_limits(workload.graph, everything[workload.graph.name])
    if reasons:
        raise InfeasibleError(reasons, hint="loosen the SLO, or plan with the feature T")
    return {w.graph.name: within_even_parts(w.graph, everything[w.graph.name]) for w in problem.workloads}
