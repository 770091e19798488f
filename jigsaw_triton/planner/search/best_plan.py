"""The best plan of a problem: its allotment, placed. What processors that slices share carry is not checked here."""

from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.survival import domains
from jigsaw_triton.planner.search.allotment import Allotment, best_allotment
from jigsaw_triton.planner.search.attempt import Attempt, OutOfTimeError
from jigsaw_triton.planner.search.first_plan import constructed
from jigsaw_triton.planner.search.planning import plan_of, spread_over_nodes
from jigsaw_triton.planner.solver.deadline import Deadline

_UNPROTECTED_SHARE = 0.3
"""Share of the time limit for the plan that need not survive a loss, which shows what surviving costs."""


def best_plan(attempt: Attempt, time: Deadline) -> Plan | None:
    """Returns the best plan, made before the deadline; None if there is no plan.

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
