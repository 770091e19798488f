"""Switches between usual and standby variants in the controller's state; `standby` has the rules. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.rows import covered_rps
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.controller.core.standby import Reading, RecentArrivals, Route, routes_to_set, to_serve
from jigsaw_triton.controller.core.state import Phase, State


def with_capacities(state: State) -> State:
    """Returns the state with the present capacities of the usual variants, for the graphs that have standby variants.

    A graph whose plan has no standby variants any more is served by the usual ones.
    """
    running = state.running
    arrivals: dict[str, RecentArrivals] = {}
    for name, plan in running.plan.graphs.items() if running is not None else ():
        if running is not None and plan.standby is not None:
            usual_rps = covered_rps(running.wanted.graphs[name], plan, state.counts, state.settings)
            recent = state.arrivals.get(name, RecentArrivals(usual_rps))
            arrivals[name] = recent if recent.usual_rps == usual_rps else replace(recent, usual_rps=usual_rps)
    if arrivals == state.arrivals and state.standby <= arrivals.keys():
        return state
    return replace(state, arrivals=arrivals, standby=state.standby & arrivals.keys())


def with_arrivals(state: State, event: e.Arrived) -> State:
    """Returns the state with one more reading of the arrivals."""
    readings = {name: Reading(event.now_s, event.seconds, count) for name, count in event.requests.items()}
    arrivals = {
        name: recent.with_reading(readings[name], state.settings) if name in readings else recent
        for name, recent in state.arrivals.items()
    }
    return replace(state, arrivals=arrivals)


def switched(state: State) -> tuple[State, Mapping[str, Route], tuple[a.Report, ...]]:
    """Decides which variants serve. Returns the new state, the routes to set, and a report for each switch."""
    serving = to_serve(state.standby, state.arrivals, state.settings)
    changed = serving ^ state.standby
    reports = tuple(a.Report("standby", _sentence(state.arrivals[name], name, serving)) for name in sorted(changed))
    if changed:
        arrivals = {
            name: RecentArrivals(recent.usual_rps) if name in changed else recent
            for name, recent in state.arrivals.items()
        }
        state = replace(state, standby=serving, arrivals=arrivals)
    running, target = state.running, state.pending if state.phase is Phase.CHANGING else None
    routes = routes_to_set(state.actual, running, serving, target) if running is not None else {}
    return state, routes, reports


def is_switching(state: State) -> bool:
    """Returns True while routes are being set: those of a switch, or of a stage, which waits for a switch to end."""
    return any(isinstance(action, a.SetRoutes) for action in state.inflight.values())


def may_switch(state: State) -> bool:
    """Returns True if variants may switch now.

    In a change they may while new workers start, or a canary is watched, if the models of the running generation are
    untouched until the new one serves. The stages of other changes are ordered for the variants that serve.
    """
    if is_switching(state) or state.now_s < state.switch_at_s:
        return False
    if state.phase is not Phase.CHANGING:
        return state.phase in (Phase.READY, Phase.SOLVING)
    committed = state.pending is None or state.pending is state.running
    if state.stage is None or state.running is None or committed or state.failed:
        return False
    waits = state.stage.watches or all(isinstance(action, a.BringUp) for action in state.stage.actions)
    return waits and _untouched(state.actual, state.running) and not any(map(_touches, _before_commit(state.stages)))


def _untouched(actual: Actual, running: Generation) -> bool:
    """Returns True if each worker of a generation has its models, and none but these and its standby variants."""
    for name, worker in running.bundle.workers.items():
        loaded = {model.name for model in actual.workers[name].models} if name in actual.workers else set()
        own = {model.name for model in worker.models}
        if not own <= loaded <= own | {model.name for model in worker.standby}:
            return False
    return True


def _before_commit(stages: Iterable[Stage]) -> Iterator[a.Action]:
    """Yields the actions of the stages up to the one after which the new generation serves."""
    for stage in stages:
        yield from stage.actions
        if stage.commits:
            return


def _touches(action: a.Action) -> bool:
    return isinstance(action, a.LoadModels | a.UnloadModels | a.Drain | a.Retire)


def _sentence(recent: RecentArrivals, name: str, serving: frozenset[str]) -> str:
    rates = f"{name} receives {recent.rps:.4g}/s, and its usual variants carry {recent.usual_rps:.4g}/s"
    return f"{rates}; standby variants take over" if name in serving else f"{rates}; they serve again"
