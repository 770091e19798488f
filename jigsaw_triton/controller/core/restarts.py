"""Restarts of servers that ended unexpectedly. Pure."""

from dataclasses import replace

from jigsaw_triton.compiler.bundle import WorkerModel, in_order
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


def restarted(state: State, name: str, loaded: tuple[WorkerModel, ...] = ()) -> Outcome:
    """Notes that a restarted server serves again, and makes up for what was loaded and unloaded during its restart.

    Args:
        state: State of the core.
        name: Name of the server.
        loaded: Models that the restart has loaded on a worker.
    """
    state, report = not_waiting(state, name), a.Report("restart", f"{name} serves again")
    worker = state.actual.workers.get(name)
    if worker is None:
        return state, (report,)
    there = {model.name for model in loaded} | _in_flight(state, a.UnloadModels, name)
    lacking = tuple(model for model in worker.models if model.name not in there)
    known = {model.name for model in worker.models} | _in_flight(state, a.LoadModels, name)
    late = tuple(model for model in loaded if model.name not in known)
    # If they cannot be unloaded, the next change does it.
    worker = replace(worker, models=in_order((*worker.models, *late)))
    state = replace(state, actual=replace(state.actual, workers={**state.actual.workers, name: worker}))
    actions: list[a.Action] = [a.LoadModels(name, lacking)] if lacking else []
    actions += [a.UnloadModels(name, tuple(model.name for model in reversed(late)))] if late else []
    state, issued = issue(state, actions)
    return state, (report, *issued)


def not_waiting(state: State, name: str) -> State:
    """Notes that the restart of a server has ended, whether it serves or not."""
    if name not in state.restarts:
        # The worker was retired before its restart began.
        return state
    return replace(state, restarts={**state.restarts, name: replace(state.restarts[name], waiting=False)})


def _restart_action(state: State, name: str, delay_s: float) -> a.Action:
    if name != GATEWAY:
        # Models that are being unloaded are gone with the server that has died.
        worker, leaving = state.actual.workers[name], _in_flight(state, a.UnloadModels, name)
        models = tuple(model for model in worker.models if model.name not in leaving)
        return a.RestartWorker(replace(worker, models=models), delay_s)
    actual = state.actual
    wanted = state.running.wanted if state.running is not None else state.wanted
    if wanted is None:
        raise ValueError("the gateway is running without a deploy request")
    return a.RestartGateway(wanted, (*actual.models.values(), *actual.fronts.values()), delay_s)


def _in_flight(state: State, kind: type[a.LoadModels | a.UnloadModels], name: str) -> set[str]:
    """Returns the names of the models of a worker that are being loaded or unloaded."""
    actions = [action for action in state.inflight.values() if isinstance(action, kind) and action.worker == name]
    return {model if isinstance(model, str) else model.name for action in actions for model in action.models}
