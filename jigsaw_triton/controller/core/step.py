"""The controller's core: `step(state, event) -> (state, outputs)`. Pure: no clock, no file, no process.

idle ── deploy ──► solving ── plan ──► changing ── last stage ──► ready ── load or deploy ──► solving ...

If a stage fails before the fronts have switched, the core rolls back to the generation that serves, or stops everything
if none does. In every phase, `down` leads to stopping and then to stopped.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.canary import Verdict, Watch
from jigsaw_triton.controller.core.canary_room import canary_obstacle
from jigsaw_triton.controller.core.demand import Demand, Sample
from jigsaw_triton.controller.core.generation import Canary, Generation, Request, Wanted
from jigsaw_triton.controller.core.lost_gpus import absorb_lost, without_lost
from jigsaw_triton.controller.core.review import due, next_at_s, risen_above
from jigsaw_triton.controller.core.rows import covered_rps, decayed, deviations, measured, still_valid
from jigsaw_triton.controller.core.slowness import judged, sentences, slow_kinds, unchanged, with_times
from jigsaw_triton.controller.core.standby import in_service
from jigsaw_triton.controller.core.state import GATEWAY, Phase, Restarts, State
from jigsaw_triton.controller.core.switching import is_switching, switched, with_arrivals, with_capacities
from jigsaw_triton.controller.core.transition import lingering, stages_down, stages_to
from jigsaw_triton.errors import StateError
from jigsaw_triton.gpus.model import GpuId
from jigsaw_triton.planner.domain.difference import difference

_SHORTFALL = 1e-3
"""Relative shortfall of the planned demand up to which a plan counts as covering all of it."""

Output = a.Issued | a.Report
Outcome = tuple[State, tuple[Output, ...]]


def step(state: State, event: e.Event) -> Outcome:
    """Handles an event. Returns the new state, and the actions and reports for the shell."""
    state, outputs = _absorb(state, event)
    state, next_outputs = _advance(state)
    return state, (*outputs, *next_outputs)


def refusal(state: State) -> str | None:
    """Returns the reason why a deploy request cannot be accepted now; None if it can."""
    if state.phase in (Phase.STOPPING, Phase.STOPPED):
        return "the deployment is being taken down"
    if state.queued is not None or (state.asked is not None and state.phase in (Phase.SOLVING, Phase.CHANGING)):
        return "another deploy is under way"
    return None


# --- events ---------------------------------------------------------------------------------------------------------


def _absorb(state: State, event: e.Event) -> Outcome:
    match event:
        case e.DeployRequested(wanted, canary):
            return replace(state, queued=Request(wanted, canary=canary)), ()
        case e.RollbackRequested(earlier):
            reason = f"rollback to generation {earlier.bundle.generation}"
            return replace(state, queued=Request(earlier.wanted, reason, earlier)), ()
        case e.CanaryEndRequested():
            watch = state.watch and state.watch.ended(Verdict(False, "requested by the user"))
            return _absorb_verdict(state, watch)
        case e.PauseRequested(paused):
            return _absorb_pause(state, paused)
        case e.DownRequested():
            watch = state.watch and state.watch.ended(Verdict(False, "the deployment is taken down"))
            stopping = replace(state, phase=Phase.STOPPING, stages=(), queued=None, failed=False, watch=watch)
            return stopping, (a.Report("down", "requested by the user; stopping all servers"),)
        case e.Tick(now_s, rates_rps, counts, tallies, times):
            counts = decayed(state.counts, counts, now_s - state.now_s, state.settings)
            times = with_times(state.times, times, now_s - state.now_s, state.settings)
            state = _absorb_rates(replace(state, now_s=now_s, counts=counts, times=times), rates_rps)
            state, told = _absorb_times(with_capacities(state))
            state, verdict = _absorb_verdict(state, state.watch and state.watch.observed(tallies, now_s))
            return state, (*told, *verdict)
        case e.Arrived():
            return _switch(with_arrivals(state, event))
        case e.WorkerExited(worker, status):
            return _restart(state, worker, f"worker {worker} ended unexpectedly ({status})")
        case e.GatewayExited(status):
            return _restart(state, GATEWAY, f"the gateway ended unexpectedly ({status})")
        case e.Stalled(server, seconds):
            state = replace(state, stalled=state.stalled | {server})
            return state, (a.Report("error", f"{server} has not answered for {seconds:g} s"),)
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
        return _absorb_review(state, action, event)
    if isinstance(event, e.Failed):
        return _absorb_failure(state, action, event, in_stage)
    actual = state.actual.after(action)
    state = replace(state, actual=actual, stalled=state.stalled & {GATEWAY, *actual.workers})
    match action:
        case a.Solve() if isinstance(event, e.Solved) and state.phase is Phase.SOLVING:
            if state.paused and action.first:
                text = "the plan that the load called for is dropped, because the user has paused"
                return _quiet(replace(state, phase=Phase.READY)), (a.Report("paused", text),)
            return replace(state, solved=(action, event)), ()
        case a.RestartWorker(worker):
            return _restarted(state, worker.name)
        case a.RestartGateway():
            return _restarted(state, GATEWAY)
    return state, ()


def _absorb_review(state: State, action: a.Solve, event: e.Solved | e.Done | e.Failed) -> Outcome:
    """Adopts the plan of a review, unless it is the one that runs or something has changed meanwhile."""
    running = state.running
    if running is action.running:
        state = replace(state, review_at_s=state.now_s + state.settings.period_s)
    if not isinstance(event, e.Solved) or state.phase is not Phase.READY or state.paused:
        return state, ()
    if running is None or running is not action.running or is_switching(state) or risen_above(state, event.plan):
        return state, ()
    if event.bundle is running.bundle:
        planned = running.plan.graphs
        fallen = {name for name, rps in action.demand_rps.items() if rps < planned[name].demand_rps}
        return replace(state, overloaded=state.overloaded - fallen), ()
    return _adopt(state, action, event)


def _absorb_failure(state: State, action: a.Action, failure: e.Failed, in_stage: bool) -> Outcome:
    error = failure.error
    match action:
        case a.Solve(reason=reason):
            if state.phase is not Phase.SOLVING:
                return state, ()
            # The same slow slices do not cause the same failure again and again.
            planned_slow = action.slow if action.restored is None else state.slow_planned
            state = replace(
                state, phase=_settled(state), slow_planned=planned_slow, error=error, error_code=failure.code
            )
            return _quiet(state), (a.Report("error", f"planning failed ({reason}): {error}", failure.code),)
        case a.RestartWorker(worker):
            return _restart(_not_waiting(state, worker.name), worker.name, error)
        case a.RestartGateway():
            return _restart(_not_waiting(state, GATEWAY), GATEWAY, error)
        case a.Retire() | a.StopGateway() if state.phase is Phase.STOPPING:
            # A failed teardown cannot be repaired here, and `down` must come to an end.
            state = replace(state, actual=state.actual.after(action))
        case a.SetRoutes() if not in_stage:
            # A later count of arrivals repeats the switch.
            state = replace(state, switch_at_s=state.now_s + state.settings.standby_hold_s)
            return state, (a.Report("error", error, failure.code),)
    if in_stage:
        state = replace(state, failed=True, error=error, error_code=failure.code)
    else:
        # Outside of a stage, the only other action unloads lingering models and routes. Retry it later.
        state = replace(state, linger_until_s=state.now_s + state.settings.linger_s)
    return state, (a.Report("error", error, failure.code),)


def _adopt(state: State, action: a.Solve, solved: e.Solved) -> Outcome:
    """Starts the transition to a new plan."""
    new = Generation(action.wanted, solved.plan, solved.bundle)
    state = replace(state, solved=None)
    demand = ", ".join(f"{name} at {_rate(rps)}" for name, rps in action.demand_rps.items())
    slices = f"{new.plan.slices_used} of {new.plan.slices_total} slices"
    report = a.Report("plan", f"generation {new.bundle.generation} for {demand} uses {slices} ({action.reason})")
    state, overload = _absorb_shortfall(state, action, new)
    running = state.running
    if running is not None and new.serves_like(running) and not state.unrestored:
        kept = replace(new, bundle=running.bundle)
        state = replace(state, phase=Phase.READY, running=kept, wanted=new.wanted, error="", error_code=0)
        state = _planned_for(state, action)
        text = "the running generation already matches the plan; nothing has to change"
        return _quiet(state, reviewed=action.review), (report, *overload, a.Report("ready", text))
    changes = difference(running.plan if running is not None else None, new.plan)
    canary = action.canary
    known = solved.start is state.actual and solved.standby == state.standby
    if known:
        stages = solved.stages
    else:
        stages = stages_to(state.actual, running, without_lost(new, action.lost), canary, state.standby)
    serving = in_service(running, state.actual, state.standby) if running is not None else None
    if canary is not None and (obstacle := canary_obstacle(stages, serving, new)):
        error = f"a canary is impossible, and nothing was changed: {obstacle}"
        state = replace(state, phase=_settled(state), error=error, error_code=StateError.exit_code)
        return _quiet(state), (report, *overload, a.Report("error", error, StateError.exit_code))
    state = replace(
        state, phase=Phase.CHANGING, pending=new, carried=action, stages=stages, failed=False, error="", error_code=0
    )
    watch = Watch.of(canary, running, new) if canary is not None and running is not None else None
    state = replace(state, watch=watch)
    return state, (report, *overload, *(a.Report("diff", str(change)) for change in changes))


def _planned_for(state: State, solve: a.Solve) -> State:
    """Returns the state in which the plan of a solve runs, which took into account what was known at its begin."""
    slow = solve.slow if solve.restored is None else state.slow_planned
    return replace(state, slow_planned=slow, replan="" if solve.lost == state.lost else state.replan)


def _absorb_lost(state: State, gpus: Collection[GpuId]) -> Outcome:
    """Notes which GPUs are lost. A canary ends, since part of what it compares may be gone."""
    before = state.lost
    state, reports = absorb_lost(state, gpus)
    newly, watch = sorted(state.lost - before), state.watch
    if newly and watch is not None:
        watch = watch.ended(Verdict(False, f"GPU {', '.join(map(str, newly))} is lost"))
    state, verdict = _absorb_verdict(state, watch)
    return state, (*reports, *verdict)


def _absorb_shortfall(state: State, action: a.Solve, new: Generation) -> Outcome:
    """Records and reports the graphs whose load exceeds the cluster's capacity."""
    planned = {name: graph.demand_rps for name, graph in new.plan.graphs.items()}
    short = {name: rps for name, rps in planned.items() if rps < action.demand_rps[name] * (1 - _SHORTFALL)}
    parts = ", ".join(f"{_rate(rps)} of {name}'s {_rate(action.demand_rps[name])}" for name, rps in short.items())
    reports = (
        (a.Report("demand", f"the load exceeds the cluster's capacity; the plan covers {parts}"),) if short else ()
    )
    return replace(state, overloaded=frozenset(short)), reports


def _absorb_verdict(state: State, watch: Watch | None) -> Outcome:
    """Records the progress of a canary. With a verdict, the change goes on or is rolled back."""
    before, state = state.watch, replace(state, watch=watch)
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
    return replace(state, paused=paused, demand={}), (a.Report("paused" if paused else "resumed", text),)


def _absorb_rates(state: State, rates_rps: Mapping[str, float]) -> State:
    if state.running is None:
        return state
    graphs = state.running.wanted.graphs
    demand = {name: state.demand.get(name, Demand()) for name in graphs}
    for name in graphs.keys() & rates_rps.keys():
        demand[name] = demand[name].with_sample(Sample(state.now_s, rates_rps[name]), state.settings)
    return replace(state, demand=demand)


def _absorb_times(state: State) -> Outcome:
    """Judges the models by their recent service times."""
    verdicts = judged(state.times, state.slow, state.settings)
    reports = tuple(a.Report("slow", text) for text in sentences(state.slow, verdicts))
    workers = state.actual.workers
    known = {served: ratio for served, ratio in state.slow.items() if served.worker in workers}
    slow = {served: ratio for served, ratio in {**known, **verdicts}.items() if ratio > 1}
    kinds = slow_kinds(state.slow_kinds, verdicts, workers)
    return replace(state, slow=slow, slow_kinds=kinds), reports


# --- standby variants -----------------------------------------------------------------------------------------------


def _switch(state: State) -> Outcome:
    """Switches graphs between their usual variants and their standby variants, if their arrivals call for it."""
    if state.phase not in (Phase.READY, Phase.SOLVING) or is_switching(state) or state.now_s < state.switch_at_s:
        return state, ()
    state, routes, reports = switched(state)
    state, issued = _issue(state, [a.SetRoutes(routes)] if routes else [])
    return state, (*reports, *issued)


# --- restarts -------------------------------------------------------------------------------------------------------


def _restart(state: State, name: str, cause: str) -> Outcome:
    """Restarts a dead server, with exponential backoff up to a limit."""
    state = replace(state, stalled=state.stalled - {name})
    leaving = any(isinstance(action, a.Retire) and action.worker.name == name for action in state.inflight.values())
    known = (name in state.actual.workers and not leaving) or (name == GATEWAY and state.actual.gateway)
    restarts = state.restarts.get(name, Restarts())
    if not known or restarts.waiting or state.phase in (Phase.STOPPING, Phase.STOPPED):
        return state, (a.Report("error", cause),)
    settings = state.settings
    recent = tuple(t for t in restarts.at_s if t > state.now_s - settings.restart_window_s)
    delay_s = min(settings.restart_delay_s * 2 ** len(recent), settings.restart_most_s) if recent else 0.0
    restarts = Restarts((*recent, state.now_s), waiting=True, cause=cause)
    state = replace(state, restarts={**state.restarts, name: restarts})
    state, issued = _issue(state, [_restart_action(state, name, delay_s)])
    when = f"in {delay_s:g} s" if delay_s else "now"
    return state, (a.Report("error", f"{cause}; restarting it {when}"), *issued)


def _restart_action(state: State, name: str, delay_s: float) -> a.Action:
    if name != GATEWAY:
        return a.RestartWorker(state.actual.workers[name], delay_s)
    actual = state.actual
    wanted = state.running.wanted if state.running is not None else state.wanted
    if wanted is None:
        raise ValueError("the gateway is running without a deploy request")
    return a.RestartGateway(wanted, (*actual.models.values(), *actual.fronts.values()), delay_s)


def _not_waiting(state: State, name: str) -> State:
    if name not in state.restarts:
        # The worker was retired before its restart began.
        return state
    return replace(state, restarts={**state.restarts, name: replace(state.restarts[name], waiting=False)})


def _restarted(state: State, name: str) -> Outcome:
    return _not_waiting(state, name), (a.Report("restart", f"{name} serves again"),)


# --- next actions ---------------------------------------------------------------------------------------------------


def _advance(state: State) -> Outcome:
    match state.phase:
        case Phase.IDLE | Phase.READY:
            return _advance_ready(state)
        case Phase.CHANGING:
            return _advance_change(state)
        case Phase.STOPPING:
            return _advance_stop(state)
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
            demand={},
            counts=counts,
            times={served: times for served, times in state.times.items() if served.graph in kept},
            slow={served: ratio for served, ratio in state.slow.items() if served.graph in kept},
            slow_kinds={kind: ratio for kind, ratio in state.slow_kinds.items() if kind.graph in kept},
        )
        state, outputs = _solve(
            state, asked.wanted, asked.demand_rps, asked.reason, restored=asked.restored, canary=asked.canary
        )
        return replace(state, phase=Phase.SOLVING), outputs
    if state.replan and state.running is not None and state.now_s >= state.replan_at_s:
        return _replan(state, state.running)
    if state.unrestored and state.running is not None and state.now_s >= state.quiet_until_s:
        state, outputs = _restore(state, state.running)
        text = "restoring the generation that serves, since the last rollback failed"
        return state, (a.Report("transition", text), *outputs)
    state, ended = _end_lingering(state)
    state, outputs = _follow_load(state)
    state, reviewing = _review(state)
    return state, (*ended, *outputs, *reviewing)


def _replan(state: State, running: Generation) -> Outcome:
    """Plans again for the present demand on other GPUs than before."""
    planned_rps = {name: graph.demand_rps for name, graph in running.plan.graphs.items()}
    demand_rps = {name: max(rps, running.wanted.demand_rps[name]) for name, rps in planned_rps.items()}
    # It is tried again until such a plan serves.
    state = replace(state, replan_at_s=state.now_s + state.settings.cooldown_s, asked=None)
    state, outputs = _solve(state, running.wanted, demand_rps, state.replan, may_fall_short=True)
    return replace(state, phase=Phase.SOLVING), outputs


def _advance_solved(state: State) -> Outcome:
    """Adopts a plan that was found, once no switch of variants is under way, so that it is known what serves."""
    if state.solved is None or is_switching(state):
        return state, ()
    state, outputs = _adopt(state, *state.solved)
    state, more = _advance(state)
    return state, (*outputs, *more)


def _end_lingering(state: State) -> Outcome:
    """Unloads pipelines and routes of earlier generations after their linger time."""
    unloading = any(isinstance(action, a.UnloadGateway) for action in state.inflight.values())
    if unloading or state.phase is not Phase.READY or state.now_s < state.linger_until_s:
        return state, ()
    pipelines, tasks = lingering(state.actual, state.running)
    names = pipelines or tasks
    return _issue(state, [a.UnloadGateway(names)]) if names else (state, ())


def _follow_load(state: State) -> Outcome:
    """Plans again at once if the measured load exceeds the capacity of the running plan, or slices are slow."""
    running = state.running
    if running is None or state.paused or state.now_s < state.quiet_until_s:
        return state, ()
    if any(r > state.settings.slow_over * state.slow_planned.get(k, 1.0) for k, r in state.slow_kinds.items()):
        planned_for = {name: graph.demand_rps for name, graph in running.plan.graphs.items()}
        state, issued = _solve(
            state, running.wanted, planned_for, "slices are slower than profiled", may_fall_short=True
        )
        return replace(state, phase=Phase.SOLVING), issued
    changes: dict[str, float] = {}
    loads: list[str] = []
    for name, demand in state.demand.items():
        plan = running.plan.graphs[name]
        covers_rps = covered_rps(running.wanted.graphs[name], plan, state.counts, state.settings)
        change = demand.risen(state.settings, covered_rps=covers_rps)
        if change is not None:
            changes[name] = change
            rate = _rate(demand.mean_rps(state.settings.rise_window_s))
            loads.append(f"{name} receives {rate}, planned {_rate(plan.demand_rps)}, capacity {_rate(covers_rps)}")
    if not changes.keys() - state.overloaded:
        # The only changes are further rises of graphs whose load already exceeds the cluster's capacity.
        return state, ()
    planned_for = {name: graph.demand_rps for name, graph in running.plan.graphs.items()}
    state = replace(state, asked=None)
    reason = f"measured load: {'; '.join(loads)}"
    state, issued = _solve(state, running.wanted, {**planned_for, **changes}, reason, may_fall_short=True, first=True)
    return replace(state, phase=Phase.SOLVING), (a.Report("demand", f"{'; '.join(loads)}; planning again"), *issued)


def _review(state: State) -> Outcome:
    """Begins a review of the running plan if one is due."""
    demand_rps = due(state)
    if demand_rps is None or state.running is None:
        return state, ()
    return _solve(state, state.running.wanted, demand_rps, "review of the plan", may_fall_short=True, review=True)


def _solve(
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
) -> Outcome:
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
    )
    differences = [sentence for name in wanted.graphs for sentence in deviations(wanted.graphs[name], graphs[name])]
    text = f"measured values replace estimates in the next plan: {'; '.join(differences)}"
    report = (a.Report("rows", text),) if differences and not review else ()
    state, issued = _issue(replace(state, next_generation=number + 1), [action])
    return state, (*report, *issued)


def _advance_change(state: State) -> Outcome:
    if state.stage_ids:
        return state, ()
    if state.stage is not None and state.stage.watches and not state.failed and state.watch is not None:
        watch = state.watch.begun(state.now_s)
        state = replace(state, watch=watch)
        if watch.verdict is None:
            return state, ()
    if state.stage is not None:
        if state.stage.commits and not state.failed and state.pending is not None:
            state = replace(state, running=state.pending, wanted=state.pending.wanted, arrivals={}, unrestored=False)
            state = with_capacities(state if state.carried is None else _planned_for(state, state.carried))
        state = replace(state, stage=None)
    committed = state.running is not None and state.running is state.pending
    if state.failed and not committed:
        return _roll_back(state)
    if state.stages:
        return _next_stage(state)
    restarts = {n: r for n, r in state.restarts.items() if n == GATEWAY or n in state.actual.workers}
    rolled_back = "rolled back: the previous generation still serves"
    text = rolled_back if state.rolling_back else "the new generation serves"
    if not state.rolling_back:
        # Failures to clean up have been reported. The change itself has succeeded.
        state = replace(state, error="", error_code=0)
    state = replace(
        state,
        phase=Phase.READY,
        pending=None,
        rolling_back=False,
        unrestored=state.unrestored and not state.rolling_back,
        failed=False,
        restarts=restarts,
        linger_until_s=state.now_s + state.settings.linger_s,
    )
    reviewed = state.carried is not None and state.carried.review
    state, outputs = _advance_ready(_quiet(replace(state, carried=None), reviewed=reviewed))
    return state, (a.Report("ready", text), *outputs)


def _roll_back(state: State) -> Outcome:
    if state.running is None:
        return _advance_stop(replace(state, phase=Phase.STOPPING, stages=(), stage=None))
    if state.rolling_back:
        again = f"trying again in {state.settings.cooldown_s:g} s"
        text = f"the rollback failed, so the previous generation is only partly restored; {again}"
        ready = replace(
            state,
            phase=Phase.READY,
            pending=None,
            carried=None,
            stages=(),
            rolling_back=False,
            unrestored=True,
            failed=False,
        )
        return _quiet(ready), (a.Report("error", text),)
    watch = state.watch and state.watch.ended(Verdict(False, state.error))
    state, outputs = _restore(replace(state, pending=None, failed=False, watch=watch), state.running)
    return state, (a.Report("transition", "the change failed; rolling back to the generation that serves"), *outputs)


def _restore(state: State, running: Generation) -> Outcome:
    """Starts the transition back to the generation that serves."""
    stages = stages_to(state.actual, running, without_lost(running, state.lost), standby=state.standby)
    return _advance_change(replace(state, phase=Phase.CHANGING, stages=stages, rolling_back=True))


def _next_stage(state: State) -> Outcome:
    stage, *rest = state.stages
    state = replace(state, stage=stage, stages=tuple(rest))
    state, issued = _issue(state, stage.actions)
    state = replace(state, stage_ids=frozenset(o.id for o in issued if isinstance(o, a.Issued)))
    report = a.Report("transition", str(stage))
    if not stage.actions:
        state, more = _advance(state)
        return state, (report, *more)
    return state, (report, *issued)


def _advance_stop(state: State) -> Outcome:
    """Waits for the actions in flight, which the shell cancels where it can, and then stops everything."""
    if state.inflight:
        return state, ()
    stages = stages_down(state.actual)
    if stages:
        return _next_stage(replace(state, stages=stages[:1]))
    stopped = replace(state, phase=Phase.STOPPED, running=None, pending=None, stages=(), stage=None)
    return stopped, (a.Report("stopped", "all servers of the deployment have ended"),)


def _rate(rps: float) -> str:
    """Formats requests a second for people."""
    return f"{rps:.3g}/s" if rps < 1000 else f"{rps:.0f}/s"


def _quiet(state: State, *, reviewed: bool = False) -> State:
    """Starts the cooldown, during which the measured load causes no change, and sets the time of the next review."""
    quiet_until_s = state.now_s + state.settings.cooldown_s
    return replace(state, asked=None, quiet_until_s=quiet_until_s, review_at_s=next_at_s(state, reviewed=reviewed))


def _settled(state: State) -> Phase:
    """Returns the phase after a failed solve."""
    return Phase.READY if state.running is not None else Phase.STOPPING


def _issue(state: State, actions: Iterable[a.Action]) -> tuple[State, tuple[Output, ...]]:
    inflight = dict(state.inflight)
    issued: list[Output] = []
    number = state.next_id
    for action in actions:
        inflight[number] = action
        issued.append(a.Issued(number, action, state.actual.node_of(action)))
        number += 1
    return replace(state, inflight=inflight, next_id=number), tuple(issued)
