"""Plans: the solve that looks for one, and its adoption, which starts the change to it. Pure."""

from collections.abc import Mapping
from dataclasses import replace

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.canary import Watch
from jigsaw_triton.controller.core.canary_room import canary_obstacle
from jigsaw_triton.controller.core.complete_routes import leads_nowhere
from jigsaw_triton.controller.core.generation import Canary, Generation, Wanted
from jigsaw_triton.controller.core.lost_gpus import without_lost
from jigsaw_triton.controller.core.outcome import Outcome, issue, quiet, rate, settled
from jigsaw_triton.controller.core.review import next_at_s, risen_above
from jigsaw_triton.controller.core.rows import deviations, measured
from jigsaw_triton.controller.core.standby import in_service
from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.controller.core.switching import is_switching
from jigsaw_triton.controller.core.transition import stages_to
from jigsaw_triton.errors import StateError
from jigsaw_triton.lists import limited
from jigsaw_triton.planner.domain.difference import difference

_SHORTFALL = 1e-3
"""Relative shortfall of the planned demand up to which a plan counts as covering all of it."""


def solve(
    state: State,
    wanted: Wanted,
    demand_rps: Mapping[str, float],
    reason: str,
    *,
    may_fall_short: bool = False,
    restored: Generation | None = None,
    canary: Canary | None = None,
    first: bool = False,
    review: bool = False,
    by_user: bool = False,
) -> Outcome:
    """Begins to look for a plan.

    Args:
        state: State of the core.
        wanted: Input of the deployment.
        demand_rps: Demands to plan for, by graph.
        reason: Reason for the plan, for the event log.
        may_fall_short: True if the plan may carry less than the demands where the cluster is too small.
        restored: Earlier generation to return to instead of planning; None for none.
        canary: Canary before the plan is carried out; None for none.
        first: True if the plan is needed at once, so that it is constructed without a solver.
        review: True if it reviews the running plan in the background.
        by_user: True if the user has asked for the plan.
    """
    graphs = {name: measured(graph, state.counts, state.settings) for name, graph in wanted.graphs.items()}
    number, running = state.next_generation, state.running
    action = a.Solve(
        wanted,
        demand_rps,
        number,
        reason,
        running,
        graphs,
        may_fall_short,
        restored,
        canary,
        first,
        review,
        state.lost,
        state.slow_kinds,
        by_user,
        state.cordoned_gpus,
    )
    differences = [sentence for name in wanted.graphs for sentence in deviations(wanted.graphs[name], graphs[name])]
    text = f"measured values replace estimates in the next plan: {'; '.join(differences)}"
    report = (a.Report("rows", text),) if differences and not review else ()
    state, issued = issue(replace(state, next_generation=number + 1), [action])
    return state, (*report, *issued)


def adopt(state: State, action: a.Solve, solved: e.Solved) -> Outcome:
    """Starts the transition to a new plan, unless that leads to a generation that cannot answer without lost GPUs."""
    new = Generation(action.wanted, solved.plan, solved.bundle)
    state = replace(state, solved=None)
    # If no other GPU was lost since, the plan holds, even if it has one that is back and that `lost` still lists.
    outdated = action.restored is not None or not state.lost <= action.lost
    if outdated and leads_nowhere(state.running, new, state.lost):
        lost = limited(sorted(state.lost))
        error = f"nothing was changed: the new generation cannot answer without the lost GPUs {lost}"
        state = replace(state, phase=settled(state), error=error, error_code=StateError.exit_code)
        return quiet(state), (a.Report("error", error, StateError.exit_code),)
    demand = ", ".join(f"{name} at {rate(rps)}" for name, rps in action.demand_rps.items())
    slices = f"{new.plan.slices_used} of {new.plan.slices_total} slices"
    report = a.Report("plan", f"generation {new.bundle.generation} for {demand} uses {slices} ({action.reason})")
    state, overload = _absorb_shortfall(state, action, new)
    running = state.running
    if running is not None and new.serves_like(running) and state.restore_at_s is None:
        kept = replace(new, bundle=running.bundle)
        state = replace(state, phase=Phase.READY, running=kept, wanted=new.wanted, error="", error_code=0)
        state = planned_for(state, action)
        text = "the running generation already matches the plan; nothing has to change"
        return quiet(state, reviewed=action.review), (report, *overload, a.Report("ready", text))
    changes = difference(running.plan if running is not None else None, new.plan)
    canary = action.canary
    known = solved.start is state.actual and solved.standby == state.standby and action.lost == state.lost
    if known:
        stages = solved.stages
    else:
        stages = stages_to(state.actual, running, without_lost(new, action.unusable), canary, state.standby, state.lost)
    serving = in_service(running, state.actual, state.standby) if running is not None else None
    if canary is not None and (obstacle := canary_obstacle(stages, serving, new)):
        error = f"a canary is impossible, and nothing was changed: {obstacle}"
        state = replace(state, phase=settled(state), error=error, error_code=StateError.exit_code)
        return quiet(state), (report, *overload, a.Report("error", error, StateError.exit_code))
    state = replace(
        state, phase=Phase.CHANGING, pending=new, carried=action, stages=stages, failed=False, error="", error_code=0
    )
    watch = Watch.of(canary, running, new) if canary is not None and running is not None else None
    state = replace(state, watch=watch)
    return state, (report, *overload, *(a.Report("diff", str(change)) for change in changes))


def absorb_review(state: State, action: a.Solve, event: e.Solved | e.Done | e.Failed) -> Outcome:
    """Adopts the plan of a review, unless it is the one that runs or something has changed meanwhile."""
    running = state.running
    if running is action.running:
        state = replace(state, review_at_s=next_at_s(state, reviewed=True))
    if not isinstance(event, e.Solved) or state.phase is not Phase.READY or state.paused:
        return state, ()
    if running is None or running is not action.running or is_switching(state) or risen_above(state, event.plan):
        return state, ()
    if event.bundle is running.bundle:
        planned = running.plan.graphs
        fallen = {name for name, rps in action.demand_rps.items() if rps < planned[name].demand_rps}
        return replace(state, overloaded=state.overloaded - fallen), ()
    return adopt(state, action, event)


def planned_for(state: State, solve: a.Solve) -> State:
    """Returns the state for the plan of a solve, which took into account what was known when it began."""
    slow = solve.slow if solve.restored is None else state.slow_planned
    known = solve.lost == state.lost and solve.cordoned == state.cordoned_gpus
    return replace(state, slow_planned=slow, replan="" if known else state.replan)


def _absorb_shortfall(state: State, action: a.Solve, new: Generation) -> Outcome:
    """Records and reports the graphs whose load exceeds the cluster's capacity."""
    planned = {name: graph.demand_rps for name, graph in new.plan.graphs.items()}
    short = {name: rps for name, rps in planned.items() if rps < action.demand_rps[name] * (1 - _SHORTFALL)}
    parts = ", ".join(f"{rate(rps)} of {name}'s {rate(action.demand_rps[name])}" for name, rps in short.items())
    reports = (
        (a.Report("demand", f"the load exceeds the cluster's capacity; the plan covers {parts}"),) if short else ()
    )
    return replace(state, overloaded=frozenset(short)), reports
