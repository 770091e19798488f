"""Restarts of servers that ended unexpectedly. Pure."""

from dataclasses import replace

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.outcome import Outcome, issue
from jigsaw_triton.controller.core.state import GATEWAY, Phase, Restarts, State


def restart(state: State, name: str, cause: str) -> Outcome:
    """Restarts a dead server, with exponential backoff up to a limit."""
    state = replace(state, stalled=state.stalled - {name})
    leaving = any(isinstance(action, a.Retire) and action.worker.name == name for action in state.inflight.values())
    known = (name in state.actual.workers and not leaving) or (name == GATEWAY and state.actual.gateway)
    restarts = state.restarts.get(name, Restarts())
    if not known or restarts.waiting or state.phase in (Phase.STOPPING, Phase.STOPPED):
        return state, (a.Report("error", cause),)
    settings = state.settings
    recent = tuple(t for t in restarts.at_s if t > state.now_s - settings.restart_window_s)
    delay_s = settings.backoff_s(len(recent))
    restarts = Restarts((*recent, state.now_s), waiting=True, cause=cause)
    state = replace(state, restarts={**state.restarts, name: restarts})
    state, issued = issue(state, [_restart_action(state, name, delay_s)])
    when = f"in {delay_s:g} s" if delay_s else "now"
    return state, (a.Report("error", f"{cause}; restarting it {when}"), *issued)


def restarted(state: State, name: str) -> Outcome:
    """Notes that a restarted server serves again."""
    return not_waiting(state, name), (a.Report("restart", f"{name} serves again"),)


def not_waiting(state: State, name: str) -> State:
    """Notes that the restart of a server has ended, whether it serves or not."""
    if name not in state.restarts:
        # The worker was retired before its restart began.
        return state
    return replace(state, restarts={**state.restarts, name: replace(state.restarts[name], waiting=False)})


def _restart_action(state: State, name: str, delay_s: float) -> a.Action:
    if name != GATEWAY:
        return a.RestartWorker(state.actual.workers[name], delay_s)
    actual = state.actual
    wanted = state.running.wanted if state.running is not None else state.wanted
    if wanted is None:
        raise ValueError("the gateway is running without a deploy request")
    return a.RestartGateway(wanted, (*actual.models.values(), *actual.fronts.values()), delay_s)
