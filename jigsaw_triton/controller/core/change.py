"""Changes under way: their stages, their rollback, and the stop of everything. Pure."""

from dataclasses import replace

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.adoption import planned_for
from jigsaw_triton.controller.core.canary import Verdict
from jigsaw_triton.controller.core.complete_routes import answers_without, complete_routes
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.lost_gpus import without_lost
from jigsaw_triton.controller.core.outcome import Outcome, ended, issue, quiet
from jigsaw_triton.controller.core.state import GATEWAY, Phase, State
from jigsaw_triton.controller.core.switching import is_switching, with_capacities
from jigsaw_triton.controller.core.teardown import stages_down
from jigsaw_triton.controller.core.transition import stages_to


def advance_change(state: State) -> Outcome:
    """Takes the next step of a change if nothing of it is under way: a stage, a rollback, or its end."""
    if state.stage_ids or is_switching(state):
        return state, ()
    if state.stage is not None and state.stage.watches and not state.failed and state.watch is not None:
        if state.watch.began_s is None:
            state = replace(state, watch=state.watch.begun(state.now_s))
        if state.watch is not None and state.watch.verdict is None:
            return state, ()
    if state.stage is not None:
        if state.stage.commits and not state.failed and state.pending is not None:
            wanted = state.pending.wanted
            demand = {name: recent for name, recent in state.demand.items() if name in wanted.graphs}
            state = replace(state, running=state.pending, wanted=wanted, arrivals={}, demand=demand, restore_at_s=None)
            state = with_capacities(state if state.carried is None else planned_for(state, state.carried))
        state = replace(state, stage=None)
    committed = state.running is not None and state.running is state.pending
    if state.reorder:
        # The first stages of a rollback may also take minutes before a later one sets the routes.
        state, led = lead_on(state)
        if led:
            return state, led
    if state.failed and not committed:
        return _roll_back(state)
    if state.reorder:
        return _reordered(state)
    if committed and state.stages and state.stages[0].cuts(state.actual.routes):
        return _without_cleaning_up(state)
    if state.stages:
        return _next_stage(state)
    restarts = {n: r for n, r in state.restarts.items() if n == GATEWAY or n in state.actual.workers}
    text = "the new generation serves"
    if state.rolling_back and state.restore_at_s is None:
        text = "rolled back: the previous generation still serves"
    elif state.rolling_back:
        text = "restored: the generation that serves is complete"
    if not state.rolling_back:
        # Failures to clean up have been reported. The change itself has succeeded.
        state = replace(state, error="", error_code=0)
    close = quiet if state.rolling_back else ended
    state = replace(
        state,
        phase=Phase.READY,
        pending=None,
        rolling_back=False,
        restore_at_s=None if state.rolling_back else state.restore_at_s,
        failed=False,
        restarts=restarts,
        linger_until_s=state.now_s + state.settings.linger_s,
    )
    reviewed = state.carried is not None and state.carried.review
    return close(replace(state, carried=None), reviewed=reviewed), (a.Report("ready", text),)


def _roll_back(state: State) -> Outcome:
    if state.running is None:
        return replace(state, phase=Phase.STOPPING, stages=(), stage=None), ()
    if state.rolling_back:
        again = f"trying again in {state.settings.cooldown_s:g} s"
        return _broken_off(state, f"the generation that serves could not be restored in full; {again}")
    watch, running = state.watch and state.watch.ended(Verdict(False, state.error)), state.running
    state = replace(state, watch=watch)
    if not answers_without(running, state.lost):
        return _without_rollback(state)
    state = restore(replace(state, pending=None, failed=False), running)
    return state, (a.Report("transition", "the change failed; rolling back to the generation that serves"),)


def _without_rollback(state: State) -> Outcome:
    """Ends a change whose rollback would end the workers that answer. The next plan goes on from what exists."""
    state, led = lead_on(state)
    because = "the previous generation cannot answer without the lost GPUs"
    state, reports = _broken_off(state, f"no rollback, since {because}; what answers goes on until the next plan")
    return state, (*led, *reports)


def _without_cleaning_up(state: State) -> Outcome:
    """Ends a change before it ends workers to which a route still leads, because that route could not be changed.

    The change itself has succeeded. What is left is ended when the generation is restored.
    """
    state = replace(state, error="", error_code=0, linger_until_s=state.now_s + state.settings.linger_s)
    again = f"trying again in {state.settings.cooldown_s:g} s"
    text = f"the workers of the previous generation go on, since its routes still lead to them; {again}"
    state, reports = _broken_off(state, text)
    return state, (*reports, a.Report("ready", "the new generation serves"))


def _broken_off(state: State, text: str) -> Outcome:
    """Ends a change with a report. The generation that serves is restored later, unless another plan is carried out."""
    ready = replace(
        state,
        phase=Phase.READY,
        pending=None,
        carried=None,
        stages=(),
        rolling_back=False,
        reorder=False,
        restore_at_s=state.now_s + state.settings.cooldown_s,
        failed=False,
    )
    return quiet(ready), (a.Report("error", text),)


def lead_on(state: State) -> Outcome:
    """Sets routes so that new requests are bound to no generation that lost GPUs leave without a worker for a task."""
    if not state.lost or state.running is None or is_switching(state) or state.now_s < state.switch_at_s:
        return state, ()
    routes = complete_routes(state.actual, state.running, state.lost)
    return issue(state, [a.SetRoutes(routes)] if routes else [])


def restore(state: State, running: Generation) -> State:
    """Starts the transition back to the generation that serves."""
    target = without_lost(running, state.lost | state.cordoned_gpus)
    stages = stages_to(state.actual, running, target, standby=state.standby, lost=state.lost)
    return replace(state, phase=Phase.CHANGING, stages=stages, rolling_back=True, reorder=False)


def _reordered(state: State) -> Outcome:
    """Computes the stages that have not started again. A canary that has been watched is not repeated."""
    text = "what serves has changed, so the stages of the rest of the change are computed again"
    solve, new, report = state.carried, state.pending, a.Report("transition", text)
    if solve is None or new is None:
        assert state.running is not None, "there is nothing to undo before a first generation serves"
        if not answers_without(state.running, state.lost):
            return _without_rollback(state)
        return replace(restore(state, state.running), rolling_back=state.rolling_back), (report,)
    watched = state.watch is not None and state.watch.began_s is not None
    target, canary = without_lost(new, solve.unusable), None if watched else solve.canary
    stages = stages_to(state.actual, state.running, target, canary, state.standby, state.lost)
    return replace(state, stages=stages, reorder=False), (report,)


def _next_stage(state: State) -> Outcome:
    stage, *rest = state.stages
    state = replace(state, stage=stage, stages=tuple(rest))
    state, issued = issue(state, stage.actions)
    state = replace(state, stage_ids=frozenset(o.id for o in issued if isinstance(o, a.Issued)))
    return state, (a.Report("transition", str(stage)), *issued)


def advance_stop(state: State) -> Outcome:
    """Waits for the actions in flight, which the shell cancels where it can, and then stops everything."""
    if state.inflight:
        return state, ()
    stages = stages_down(state.actual)
    if stages:
        return _next_stage(replace(state, stages=stages[:1]))
    stopped = replace(state, phase=Phase.STOPPED, running=None, pending=None, stages=(), stage=None)
    return stopped, (a.Report("stopped", f"all servers of the deployment have ended{_exceptions(state)}"),)


def _exceptions(state: State) -> str:
    """Returns the end of a sentence that names the nodes whose workers remain, because no agent answers."""
    cluster = state.wanted.cluster if state.wanted is not None else None
    if cluster is None or cluster.agents is None:
        return ""
    reached = {gpu.id.node for gpu in cluster.gpus if gpu.id not in state.lost}
    lost = sorted({gpu.id.node for gpu in cluster.gpus} - reached)
    if not lost:
        return ""
    advice = "end its agent, and run `jigsaw-triton down` with the agent's state folder"
    return f", except those on nodes that do not answer ({', '.join(lost)}): on each, {advice}"
