"""Recovery of the next controller from the state that the last one left. Pure.

Servers outlive their controller. The last checkpoint has the servers that ran, and the actions in flight. Each of these
actions may have been done, half done, or not done at all. Recovery assumes the least, and the shell ends whatever else
it finds (`Fleet.adopt`). A change that was in progress is undone.
"""

from dataclasses import replace

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import ChangeRequest
from jigsaw_triton.controller.core.lost_gpus import without_lost
from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.controller.core.transition import stages_to


def recovered(state: State) -> State | None:
    """Returns the state to go on from; None if nothing served yet, so that the next controller starts from nothing.

    Args:
        state: State of the last checkpoint.
    """
    actual, running = least(state), state.running
    restarts = {name: replace(r, waiting=False) for name, r in state.restarts.items()}
    settled = replace(
        state,
        actual=actual,
        restarts=restarts,
        stalled=frozenset(),
        inflight={},
        stages=(),
        stage=None,
        watch=None,
        stage_ids=frozenset(),
        solved=None,
        carried=None,
        pending=None,
        queued=None,
        failed=False,
        # The samples and the next one are apart by the time that no controller ran.
        demand={name: demand.learned() for name, demand in state.demand.items()},
        arrivals={},
        rolling_back=False,
        reorder=False,
        asked=None,
    )
    if state.phase in (Phase.STOPPING, Phase.STOPPED):
        return settled
    if running is None or not actual.gateway:
        return None
    settled = replace(settled, wanted=running.wanted)
    if state.phase is Phase.CHANGING:
        target = without_lost(running, state.lost)
        stages = stages_to(actual, running, target, standby=state.standby)
        return replace(settled, stages=stages, rolling_back=running is not state.pending)
    return replace(settled, phase=Phase.READY)


def unfinished(state: State) -> ChangeRequest | None:
    """Returns the user's last request if it was not carried out yet, so that it can be repeated; else None.

    Args:
        state: State of the last checkpoint.
    """
    if state.phase in (Phase.STOPPING, Phase.STOPPED):
        return None
    if state.queued is not None:
        return state.queued
    if state.rolling_back:
        return None
    committed = state.running is not None and state.running is state.pending
    if state.running is not None and (committed or state.phase not in (Phase.SOLVING, Phase.CHANGING)):
        return None
    return state.asked


def least(state: State) -> Actual:
    """Servers, models and routes that certainly exist, whichever of the actions in flight were carried out.

    A front that was being switched may be the old one or the new one. It is left out, so that it is switched again.
    """
    actual = state.actual
    for action in state.inflight.values():
        match action:
            case a.UnloadModels() | a.UnloadGateway() | a.Retire() | a.StopGateway():
                actual = actual.after(action)
            case a.Flip(graph):
                actual = replace(actual, fronts={name: f for name, f in actual.fronts.items() if name != graph})
    return actual
