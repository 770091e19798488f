"""The controller's core: `step(state, event) -> (state, outputs)`. Pure: no clock, no file, no process.

idle ── deploy ──► solving ── plan ──► changing ── last stage ──► ready ── load or deploy ──► solving ...

If a stage fails before the fronts have switched, the core rolls back to the generation that serves, or stops everything
if none does. In every phase, `down` leads to stopping and then to stopped.
"""

from collections.abc import Collection
from dataclasses import replace

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.adoption import absorb_review, adopt, solve
from jigsaw_triton.controller.core.canary import Verdict, Watch
from jigsaw_triton.controller.core.change import advance_change, advance_stop, lead_on, restore
from jigsaw_triton.controller.core.complete_routes import answers_without, leads_nowhere
from jigsaw_triton.controller.core.gateway_content import lingering
from jigsaw_triton.controller.core.generation import ChangeRequest
from jigsaw_triton.controller.core.load import absorb_times, demand_with, follow_load, learned, replan, review
from jigsaw_triton.controller.core.lost_gpus import absorb_cordon, absorb_lost
from jigsaw_triton.controller.core.outcome import Outcome, Output, issue, quiet, settled
from jigsaw_triton.controller.core.restarts import not_waiting, restart, restarted
from jigsaw_triton.controller.core.rows import decayed, still_valid
from jigsaw_triton.controller.core.slowness import unchanged, with_times
from jigsaw_triton.controller.core.state import GATEWAY, Phase, State
from jigsaw_triton.controller.core.switching import is_switching, may_switch, switched, with_arrivals, with_capacities
from jigsaw_triton.errors import StateError
from jigsaw_triton.gpus.model import GpuId
from jigsaw_triton.lists import limited


def step(state: State, event: e.Event) -> Outcome:
    """Handles an event. Returns the new state, and the actions and reports for the shell."""
    state, outputs = _absorb(state, event)
    state, next_outputs = _advance(state)
    return state, (*outputs, *next_outputs)


# --- events ---------------------------------------------------------------------------------------------------------


def _absorb(state: State, event: e.Event) -> Outcome:
    match event:
        case e.DeployRequested(wanted, canary, reason, provided_rps):
            request = ChangeRequest(wanted, reason, canary=canary, provided_rps=provided_rps)
            return replace(state, queued=request), ()
        case e.RollbackRequested(earlier):
            reason = f"rollback to generation {earlier.bundle.generation}"
            return replace(state, queued=ChangeRequest(earlier.wanted, reason, earlier)), ()
        case e.CanaryEndRequested():
            watch = state.watch and state.watch.ended(Verdict(False, "requested by the user"))
            return _absorb_verdict(state, watch)
        case e.PauseRequested(paused):
            return _absorb_pause(state, paused)
        case e.CordonRequested(node, cordoned, drain):
            return absorb_cordon(state, node, cordoned=cordoned, drain=drain), ()
        case e.DownRequested():
            watch = state.watch and state.watch.ended(Verdict(False, "the deployment is taken down"))
            stopping = replace(state, phase=Phase.STOPPING, stages=(), queued=None, failed=False, watch=watch)
            return stopping, (a.Report("down", "requested by the user; stopping all servers"),)
        case e.Tick(now_s, rates_rps, counts, requests, times, utc_offset_s):
            counts = decayed(state.counts, counts, now_s - state.now_s, state.settings)
            times = with_times(state.times, times, now_s - state.now_s, state.settings)
            demand = demand_with(state, now_s, rates_rps, utc_offset_s)
            # Copies of the whole state are most of the work of a second in which nothing changes.
            state = replace(state, now_s=now_s, counts=counts, times=times, demand=demand)
            state, reports = absorb_times(with_capacities(state))
            state, verdict = _absorb_verdict(state, state.watch and state.watch.observed(requests, now_s))
            return state, (*reports, *verdict)
        case e.Arrived():
            return _switch(with_arrivals(state, event))
        case e.WorkerExited(worker, status):
            return restart(state, worker, f"worker {worker} ended unexpectedly ({status})")
        case e.GatewayExited(status):
            return restart(state, GATEWAY, f"the gateway ended unexpectedly ({status})")
        case e.Stalled(server, seconds):
            state = replace(state, stalled=state.stalled | {server})
            return state, (a.Report("error", f"{server} has not answered for {seconds:g} s"),)
        case e.Loading(server):
            state = replace(state, stalled=state.stalled | {server})
            return state, (a.Report("adopt", f"{server} still loads its models"),)
        case e.Answered(server) if server not in state.stalled:
            return state, ()
        case e.Answered(server):
            return replace(state, stalled=state.stalled - {server}), (a.Report("restart", f"{server} answers again"),)
        case e.GpusLost(gpus):
            return _absorb_lost(state, gpus)
        case e.Noticed(kind, text):
            return state, (a.Report(kind, text),)
        case e.Solved() | e.Done() | e.Failed():
            return _absorb_end(state, event)


def _absorb_end(state: State, event: e.Solved | e.Done | e.Failed) -> Outcome:
    """Handles the outcome of an action."""
    action = state.inflight.get(event.id)
    if action is None:
        return state, ()
    inflight = {number: act for number, act in state.inflight.items() if number != event.id}
    in_stage = event.id in state.stage_ids
    state = replace(state, inflight=inflight, stage_ids=state.stage_ids - {event.id})
    if isinstance(action, a.Solve) and action.review:
        return absorb_review(state, action, event)
    if isinstance(event, e.Failed):
        return _absorb_failure(state, action, event, in_stage)
    actual = state.actual.after(action)
    state = replace(state, actual=actual, stalled=state.stalled & {GATEWAY, *actual.workers})
    match action:
        case a.Solve() if isinstance(event, e.Solved) and state.phase is Phase.SOLVING:
            if state.paused and action.first:
                text = "the plan that the load called for is dropped, because the user has paused"
                return quiet(replace(state, phase=Phase.READY)), (a.Report("paused", text),)
            return replace(state, solved=(action, event)), ()
        case a.RestartWorker(worker):
            return restarted(state, worker.name, worker.models)
        case a.RestartGateway():
            return restarted(state, GATEWAY)
    return state, ()


def _absorb_failure(state: State, action: a.Action, failure: e.Failed, in_stage: bool) -> Outcome:
    error = failure.error
    match action:
        case a.Solve(reason=reason):
            if state.phase is not Phase.SOLVING:
                return state, ()
            if action.lost:
                error = f"{error} (planned without the lost GPUs {limited(sorted(action.lost))})"
            # Slow slices that have caused a failed solve are noted as planned, so that they do not cause it again.
            planned_slow = action.slow if action.restored is None else state.slow_planned
            state = replace(
                state, phase=settled(state), slow_planned=planned_slow, error=error, error_code=failure.code
            )
            return quiet(state), (a.Report("error", f"planning failed ({reason}): {error}", failure.code),)
        case a.RestartWorker(worker):
            return restart(not_waiting(state, worker.name), worker.name, error)
        case a.RestartGateway():
            return restart(not_waiting(state, GATEWAY), GATEWAY, error)
        case a.Retire() | a.StopGateway() if state.phase is Phase.STOPPING:
            # A failed teardown cannot be repaired here, and `down` must come to an end.
            state = replace(state, actual=state.actual.after(action))
        case a.SetRoutes() if not in_stage:
            # The next count of arrivals after this time repeats the switch.
            state = replace(state, switch_at_s=state.now_s + state.settings.standby_hold_s)
            return state, (a.Report("error", error, failure.code),)
        case a.LoadModels(worker=name) if not in_stage:
            # The worker lacks models that it should have since its restart.
            return restart(state, name, error)
        case a.UnloadGateway() if not in_stage:
            state = replace(state, linger_until_s=state.now_s + state.settings.linger_s)
    if in_stage:
        state = replace(state, failed=True, error=error, error_code=failure.code)
    return state, (a.Report("error", error, failure.code),)


def _absorb_lost(state: State, gpus: Collection[GpuId]) -> Outcome:
    """Notes which GPUs are lost. A canary ends, since part of what it compares may be gone.

    The rest of a change is computed again, since requests may have to leave a generation sooner, and workers on GPUs
    that are back may answer.
    """
    before = state.lost
    state, reports = absorb_lost(state, gpus)
    newly, watch = sorted(state.lost - before), state.watch
    led: tuple[Output, ...] = ()
    if state.lost != before and state.phase is Phase.CHANGING:
        state = replace(state, reorder=True)
    if newly and state.phase not in (Phase.STOPPING, Phase.STOPPED):
        under_way = state.stage.actions if state.stage is not None else ()
        if all(isinstance(action, a.BringUp | a.LoadModels) for action in under_way):
            # Bringing up workers and loading models may take minutes; stages that set routes or drain are short.
            state, led = lead_on(state)
        if not state.failed and leads_nowhere(state.running, state.pending, state.lost):
            error = f"GPU {limited(newly)} is lost, and the new generation cannot answer without it"
            state = replace(state, failed=True, error=error, error_code=StateError.exit_code)
            led = (*led, a.Report("error", error, StateError.exit_code))
    if newly and watch is not None:
        watch = watch.ended(Verdict(False, f"GPU {limited(newly)} is lost"))
    state, verdict = _absorb_verdict(state, watch)
    return state, (*reports, *led, *verdict)


def _absorb_verdict(state: State, watch: Watch | None) -> Outcome:
    """Records the progress of a canary. With a verdict, the change goes on or is rolled back."""
    before = state.watch
    if watch is before:
        return state, ()
    state = replace(state, watch=watch)
    if watch is None or watch.verdict is None or (before is not None and before.verdict is not None):
        return state, ()
    report = a.Report("canary", str(watch.verdict))
    if not watch.verdict.promoted:
        state = replace(state, failed=True, error=f"canary: {watch.verdict}", error_code=StateError.exit_code)
    return state, (report,)


def _absorb_pause(state: State, paused: bool) -> Outcome:
    if paused == state.paused:
        return state, ()
    text = "the measured load causes no change until `resume`" if paused else "the plan follows the measured load again"
    # Arrivals during the pause say little about the load from now on.
    return replace(state, paused=paused, demand=learned(state.demand)), (
        a.Report("paused" if paused else "resumed", text),
    )


# --- standby variants -----------------------------------------------------------------------------------------------


def _switch(state: State) -> Outcome:
    """Switches graphs between their usual variants and their standby variants, if their arrivals call for it."""
    if not may_switch(state):
        return state, ()
    state, routes, reports = switched(state)
    if state.phase is Phase.CHANGING and routes:
        state = replace(state, reorder=True)
    state, issued = issue(state, [a.SetRoutes(routes)] if routes else [])
    return state, (*reports, *issued)


# --- next actions ---------------------------------------------------------------------------------------------------


def _advance(state: State) -> Outcome:
    """Does what follows from the state, until nothing does without another event."""
    outputs: tuple[Output, ...] = ()
    while True:
        before = state
        state, more = _advance_once(state)
        outputs += more
        if state is before:
            return state, outputs


def _advance_once(state: State) -> Outcome:
    match state.phase:
        case Phase.IDLE | Phase.READY:
            return _advance_ready(state)
        case Phase.CHANGING:
            return advance_change(state)
        case Phase.STOPPING:
            return advance_stop(state)
        case Phase.SOLVING:
            return _advance_solved(state)
        case Phase.STOPPED:
            return state, ()


def _advance_ready(state: State) -> Outcome:
    if state.queued is not None:
        asked = state.queued
        before = state.wanted.graphs if state.wanted is not None else {}
        counts = still_valid(state.counts, before, asked.wanted.graphs)
        kept = unchanged(state.wanted, asked.wanted)
        state = replace(
            state,
            queued=None,
            asked=asked,
            wanted=asked.wanted,
            demand=learned(state.demand),
            counts=counts,
            times={served: times for served, times in state.times.items() if served.graph in kept},
            slow={served: ratio for served, ratio in state.slow.items() if served.graph in kept},
            slow_kinds={kind: ratio for kind, ratio in state.slow_kinds.items() if kind.graph in kept},
        )
        state, outputs = solve(
            state,
            asked.wanted,
            asked.demand_rps,
            asked.reason,
            may_fall_short=bool(asked.provided_rps),
            restored=asked.restored,
            canary=asked.canary,
            by_user=True,
        )
        return replace(state, phase=Phase.SOLVING), outputs
    if state.replan and state.running is not None and state.now_s >= state.replan_at_s:
        return replan(state, state.running)
    state, outputs = follow_load(state)
    if state.phase is Phase.READY and state.running is not None and _restorable(state):
        text = "restoring the generation that serves, since the last change could not be completed or undone in full"
        return restore(state, state.running), (*outputs, a.Report("transition", text))
    state, ended = _end_lingering(state)
    state, reviewing = review(state)
    return state, (*outputs, *ended, *reviewing)


def _restorable(state: State) -> bool:
    """Returns True if it is time to restore the running generation, and no switch alters what has to be restored.

    A generation that cannot answer without the lost GPUs is not restored: what answers in its place would end.
    """
    if state.restore_at_s is None or state.now_s < state.restore_at_s or is_switching(state):
        return False
    return state.running is not None and answers_without(state.running, state.lost)


def _advance_solved(state: State) -> Outcome:
    """Adopts a plan that was found, once no switch of variants is under way, so that it is known what serves."""
    if state.solved is None or is_switching(state):
        return state, ()
    return adopt(state, *state.solved)


def _end_lingering(state: State) -> Outcome:
    """Unloads pipelines and routes of earlier generations after their linger time."""
    unloading = any(isinstance(action, a.UnloadGateway) for action in state.inflight.values())
    if unloading or state.phase is not Phase.READY or state.now_s < state.linger_until_s:
        return state, ()
    pipelines, tasks = lingering(state.actual, state.running)
    names = pipelines or tasks
    return issue(state, [a.UnloadGateway(names)]) if names else (state, ())
