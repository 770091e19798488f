"""Reviews of the running plan: plans made in the background, which take effect only if they save enough. Pure.

The first plan after a burst is constructed in tenths of a second and takes more slices than necessary. A review follows
it, while the first plan already serves. Other reviews follow at regular intervals, if the load has fallen.
"""

from collections.abc import Mapping

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.rows import covered_rps
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.planner.domain.costs import Costs
from jigsaw_triton.planner.domain.difference import difference
from jigsaw_triton.planner.domain.plan import Plan


def due(state: State) -> Mapping[str, float] | None:
    """Returns the demands for which a review begins now, by graph; None if none does."""
    running = state.running
    if running is None or state.phase is not Phase.READY or state.paused or state.now_s < state.review_at_s:
        return None
    if any(isinstance(action, a.Solve) for action in state.inflight.values()):
        return None
    planned = {name: graph.demand_rps for name, graph in running.plan.graphs.items()}
    fallen = {
        name: rps
        for name, demand in state.demand.items()
        if (rps := demand.fallen(planned[name], running.wanted.demand_rps[name], state.settings)) is not None
    }
    return {**planned, **fallen} if fallen or running.plan.solver.constructed else None


def next_at_s(state: State, *, reviewed: bool) -> float:
    """Returns the time from which on a review of the running plan may begin, if the plan serves from now on.

    Args:
        state: State of the core.
        reviewed: True if the plan is that of a review. It may still be one that was constructed, if time ran out.
    """
    running = state.running
    if running is None or (running.plan.solver.constructed and not reviewed):
        return state.now_s
    return state.now_s + running.wanted.period_s


def risen_above(state: State, plan: Plan) -> bool:
    """Returns True if the load of any graph has risen above the capacity of a plan."""
    running = state.running
    return running is not None and any(
        demand.risen(
            state.settings,
            covered_rps=covered_rps(running.wanted.graphs[name], plan.graphs[name], state.counts, state.settings),
        )
        is not None
        for name, demand in state.demand.items()
        if name in plan.graphs
    )


def worth(running: Plan, plan: Plan, price: float, settings: Settings, costs: Costs) -> bool:
    """Returns True if a plan saves so much cost (so many slices, if all count alike) that it pays to change to it.

    A plan that survives a loss is worth the change if the running one does not, and the reverse never is.

    Args:
        running: Plan that runs.
        plan: Plan to change to.
        price: Compute slices that a change of one running MIG instance costs.
        settings: Settings of the control loop.
        costs: Costs of the boards.
    """
    changed = sum(change.kind != "add" for change in difference(running, plan))
    if (plan.survival is None) != (running.survival is None):
        return plan.survival is not None
    before = costs.units(running)
    saved = before - costs.units(plan)
    return saved > 0 and saved >= max(price * costs.mean * changed, settings.review_saves * before)
