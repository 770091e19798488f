"""The largest factor by which demands can be multiplied while the cluster still carries them."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

from jigsaw_triton.planner.domain.costs import cluster_cost
from jigsaw_triton.planner.domain.problem import MAX_DEMAND_RPS, Problem, on_floors, with_demand_scaled
from jigsaw_triton.planner.domain.processors import REQUEST_S, processor_limit
from jigsaw_triton.planner.domain.rates import least_calls
from jigsaw_triton.planner.domain.tolerances import TOLERANCE
from jigsaw_triton.planner.formulation.model import allocation
from jigsaw_triton.planner.formulation.objectives import SCALE_GAP
from jigsaw_triton.planner.search.attempt import Attempt, OutOfTimeError
from jigsaw_triton.planner.search.bisection import bisect
from jigsaw_triton.planner.search.choices import (
    Candidates,
    bounds_of,
    complete,
    least_together,
    supplies,
    with_room,
    within_slices,
)
from jigsaw_triton.planner.search.feasibility import feasible
from jigsaw_triton.planner.search.fewest_slices import WITNESS_SHARE
from jigsaw_triton.planner.solver.deadline import LEAST_S
from jigsaw_triton.planner.solver.solver import solved

_ROUNDS = 4
"""Largest number of times that a scale is refined."""

_EXACT_FROM = 0.5
"""Scale from which a solver's absolute tolerance is small enough; below it, the scaled demands are scaled once more."""

_NEAR = 0.98
"""Ratio of needed slices, by cost, to those of the cluster at which the estimate of a scale from lower bounds ends."""

_PARTS = (0.99, 0.95, 0.85, 0.6, 0.3)
"""Fractions of the estimated scale, tried in turn until one is carried: an estimate from lower bounds is optimistic."""

_MORE = (0.005, 0.02, 0.05, 0.15, 0.5, 1.0, 3.0, 10.0)
"""Relative increases of a carried scale that are tried in turn, as an upper bound, if time runs out."""

_SURELY = 0.999
"""Fraction of a carried scale that the program must reach; the rest allows for the solver's tolerance."""

_IDLE_RPS = 1e-6
"""Demand that is treated as zero."""

_PROBES = 8
"""Number of questions about single scales that fit into the time limit."""

_FLOORS_GROWTH = 1.02
"""First factor to try above a scale that holds the accuracy for each request, where only the mean has to hold."""

_MOST_SCALE = 1e6
_LEAST_SCALE = 1e-3
"""Range of scales that bisection searches; a cluster that carries less has no room for the tasks."""

_ROUGH_FACTOR = 16.0
"""Factor by which a rough search divides the demand until the cluster carries it."""

_ROUGH_HALVINGS = 8
"""Bisection steps of a rough search."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A factor for demands that the cluster carries.

    Attributes:
        value: The factor; 0 if none was found within the time limit.
        gap: Relative distance to the upper bound; 0 if no larger scale is possible, infinite without a bound.
    """

    value: float
    gap: float


def with_largest_demand(attempt: Attempt, growing: Collection[str]) -> tuple[Problem, float] | None:
    """Returns the problem with the largest demands, and the relative gap to the upper bound; None without any plan.

    Args:
        attempt: Attempt whose demands give the proportions.
        growing: Names of the graphs whose demands are scaled; the others keep theirs.

    Raises:
        OutOfTimeError: No scale was found within the time limit.
    """
    if needs_bisection(attempt):
        found = _largest_by_bisection(attempt, growing)
        if found is None:
            return None
        return with_demand_scaled(attempt.problem, growing, found.value * (1 - TOLERANCE)), found.gap
    gap = math.inf
    for _ in range(_ROUNDS):
        found = largest_scale(attempt, growing)
        if found is None:
            return None
        gap = found.gap
        if math.isinf(gap):
            raise OutOfTimeError(attempt.options.time_limit_s)
        most_rps = max(w.demand_rps for w in attempt.problem.workloads if w.graph.name in growing)
        scale = min(found.value, MAX_DEMAND_RPS / most_rps)
        attempt = attempt.scaled(growing, scale)
        if scale > _EXACT_FROM:
            break
    return with_demand_scaled(attempt.problem, growing, 1 - TOLERANCE), gap


def needs_bisection(attempt: Attempt) -> bool:
    """Returns True if no single program finds the largest scale.

    With shared slices the load of a configuration depends on the demand; with a mean accuracy, terms that are linear at
    a fixed demand are not linear in the demand.
    """
    return attempt.options.share or attempt.problem.averages


def largest_scale(attempt: Attempt, growing: Collection[str]) -> Scale | None:
    """Returns the largest scale of these graphs' demands, found by one program; None if there is no plan at any scale.

    The search starts from a scale near the largest, since solvers are exact to an absolute tolerance. Configurations
    that no plan can use at that scale are left out: at any larger one they take more slices still.
    """
    attempt = attempt.apart()
    candidates: Candidates = with_room(attempt.problem, attempt.candidates(), attempt.options)
    if not complete(candidates):
        return None
    near = _scale_near(attempt, growing, candidates)
    if not near and _has_no_room(attempt, growing, candidates):
        return None
    start = near or 1.0
    problem = with_demand_scaled(attempt.problem, growing, start)
    if near:
        bounds = bounds_of(problem.workloads, candidates)
        candidates = within_slices(cluster_cost(problem.cluster), bounds, candidates)
    offered = supplies(problem, candidates, attempt.options)
    model = allocation(
        problem.workloads,
        candidates,
        offered,
        "most",
        scaled=growing,
        least=_SURELY if near else 0.0,
        survive=problem.survive,
        limit=processor_limit(problem),
    )
    outcome = solved(attempt.solver, model.program, max(LEAST_S, attempt.options.time_limit_s))
    if outcome.status == "infeasible" and not near:
        return None
    if not outcome.stages:
        return Scale(near, _gap_to_bound(attempt, growing, near) if near else math.inf)
    assert model.scale is not None, "the goal `most` has a column of the scale"
    value = start * outcome.values[model.scale]
    # A solver that is short of time may return the plan that carries nothing.
    return Scale(value, outcome.stages[0].gap) if value > 0 else Scale(0.0, math.inf)


def _gap_to_bound(attempt: Attempt, growing: Collection[str], scale: float) -> float:
    """Returns the relative distance from a scale to one that the cluster surely does not carry; infinite without one.

    The lower bounds on slices exceed the cluster there.
    """
    candidates = with_room(attempt.problem, attempt.candidates(), attempt.options)
    for more in _MORE:
        problem = with_demand_scaled(attempt.problem, growing, scale * (1 + more))
        least = least_together(b.least for b in bounds_of(problem.workloads, candidates).values())
        if least > cluster_cost(problem.cluster):
            return more
    return math.inf


def _scale_near(attempt: Attempt, growing: Collection[str], candidates: Candidates) -> float:
    """Returns a scale that the cluster carries, near the largest; 0 if none is found soon."""
    scale = 1.0
    for _ in range(_ROUNDS):
        bounds = bounds_of(with_demand_scaled(attempt.problem, growing, scale).workloads, candidates)
        needed = sum(b.least for name, b in bounds.items() if name in growing)
        room = cluster_cost(attempt.problem.cluster) - sum(b.least for b in bounds.values()) + needed
        if math.isinf(needed) or not room > 0:
            return 0.0
        scale *= room / needed
        if _NEAR < room / needed < 1 / _NEAR:
            break
    scale = min(scale, _scale_of_processors(attempt.problem, growing, candidates))
    if not scale:
        return 0.0
    soon = attempt.limited(WITNESS_SHARE * attempt.options.time_limit_s)
    return next((part * scale for part in _PARTS if feasible(soon.scaled(growing, part * scale))), 0.0)


def _scale_of_processors(problem: Problem, growing: Collection[str], candidates: Candidates) -> float:
    """Returns an upper bound on the scale that the processors carry which slices share; infinite if they share none."""
    limit = processor_limit(problem)
    if limit is None:
        return math.inf
    own = others = 0.0
    for workload in problem.workloads:
        graph, found = workload.graph, candidates[workload.graph.name]
        rates = least_calls(graph, {task: {c.variant for c in of_task} for task, of_task in found.items()})
        request_s = REQUEST_S
        for task, of_task in found.items():
            places = ((c.variant, c.board, c.slice, c.batch) for c in of_task)
            request_s += rates[task] * min(limit.call_s(graph.name, task, *place) or 0.0 for place in places)
        busy = workload.demand_rps * request_s
        own, others = (own + busy, others) if graph.name in growing else (own, others + busy)
    return max(0.0, limit.processors * limit.nodes - others) / own


def _has_no_room(attempt: Attempt, growing: Collection[str], candidates: Candidates) -> bool:
    """Returns True if lower bounds prove that the cluster has too few slices for these graphs at any demand."""
    idle = attempt.scaled(growing, idle_scale(attempt.problem, growing)).problem
    bounds = bounds_of(idle.workloads, candidates)
    return least_together(b.least for b in bounds.values()) > cluster_cost(idle.cluster)


def idle_scale(problem: Problem, growing: Collection[str]) -> float:
    """Returns a scale at which the demands of these graphs are practically zero."""
    return _IDLE_RPS / max([1.0, *(w.demand_rps for w in problem.workloads if w.graph.name in growing)])


def rough_scale(attempt: Attempt, growing: Collection[str]) -> Scale | None:
    """Returns a scale below 1 that the cluster carries, by a few bisection steps; None if it carries no demand at all.

    Args:
        attempt: Attempt at a problem without a plan.
        growing: Names of the graphs whose demands are scaled.
    """
    carries = partial(_carries, attempt, growing)
    low, carried = _divided(carries, 1.0, _ROUGH_FACTOR, idle_scale(attempt.problem, growing))
    if not carried:
        return None if carried is False else Scale(0.0, math.inf)
    high = low * _ROUGH_FACTOR
    low, high = bisect(carries, low, high, abs_tol=(high - low) / 2**_ROUGH_HALVINGS)
    return Scale(low, (high - low) / low)


def _largest_by_bisection(attempt: Attempt, growing: Collection[str]) -> Scale | None:
    """Returns the largest scale: multiplies or divides until the largest is bracketed, then bisects to `SCALE_GAP`."""
    answers: dict[float, bool | None] = {}

    def carries(scale: float) -> bool:
        answers[scale] = _carries(attempt, growing, scale)
        return bool(answers[scale])

    low = _scale_on_floors(attempt, growing)
    growth = _FLOORS_GROWTH if low else 2.0
    high = low * growth or 1.0
    while high < _MOST_SCALE and carries(high):
        low, high, growth = high, high * growth, min(2.0, growth**2)
    if not low:
        low, carried = _divided(carries, high, 2.0, _LEAST_SCALE)
        high = 2.0 * low
        if not carried:
            if answers[low] is None:
                raise OutOfTimeError(attempt.options.time_limit_s)
            return None
    low, high = bisect(carries, low, high, rel_tol=SCALE_GAP)
    return Scale(low, (high - low) / low if answers.get(high) is None else 0.0)


def _divided(
    carries: Callable[[float], bool | None], high: float, divisor: float, least: float
) -> tuple[float, bool | None]:
    """Divides a scale until the cluster carries it, or until it is below the least; returns it and the last answer."""
    carried: bool | None = False
    while not carried and high >= least:
        high /= divisor
        carried = carries(high)
    return high, carried


def _scale_on_floors(attempt: Attempt, growing: Collection[str]) -> float:
    """Returns a scale to start from: the largest if the accuracy holds for each request; 0 if none is found soon."""
    if attempt.options.share:
        return 0.0
    found = largest_scale(replace(attempt, problem=on_floors(attempt.problem)), growing)
    return found.value if found and found.value and _carries(attempt, growing, found.value) else 0.0


def _carries(attempt: Attempt, growing: Collection[str], scale: float) -> bool | None:
    """Returns True if there is a plan for these graphs' demands at this scale; None if time runs out first."""
    attempt = attempt.scaled(growing, scale)
    if max(w.demand_rps for w in attempt.problem.workloads) > MAX_DEMAND_RPS:
        return False
    return feasible(attempt.limited(max(LEAST_S, attempt.options.time_limit_s / _PROBES)))
