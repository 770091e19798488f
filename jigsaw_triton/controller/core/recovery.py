"""Recovery of the next controller from the state that the last one left. Pure.

Servers outlive their controller. The last checkpoint has the servers that ran, and the actions in flight. Each of these
actions may have been done, half done, or not done at all. Recovery assumes the least, and the shell ends whatever else
it finds (`Fleet.adopt`). A change that was in progress is undone.
"""

from dataclasses import replace

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.complete_routes import answers_without
from jigsaw_triton.controller.core.generation import ChangeRequest
from jigsaw_triton.controller.core.lost_gpus import without_lost
from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.controller.core.transition import stages_to

_REMOVING = (a.UnloadModels, a.UnloadGateway, a.Retire, a.StopGateway, a.Flip)
"""Actions that remove or replace something. Recovery assumes that it is gone, and that no other action was done."""


def essential(state: State) -> State:
    """Returns a state without what `recovered` and `unfinished` do not need.

    A change in progress is undone, or the rest of it is computed again. So neither its stages nor the generation that
    it leads to are needed, and of the actions in flight only those that may have removed something. Samples of the load
    are not needed either: between the last one and the next one, no controller measured.

    Args:
        state: State at any moment.
    """
    removing = {number: action for number, action in state.inflight.items() if isinstance(action, _REMOVING)}
    return replace(
        state,
        stalled=frozenset(),
        inflight=removing,
        stages=(),
        stage=None,
        watch=None,
        stage_ids=frozenset(),
        solved=None,
        carried=None,
        demand={name: demand.learned() for name, demand in state.demand.items()},
        pending=state.pending if state.pending is state.running else None,
        failed=False,
        arrivals={},
        reorder=False,
    )


def recovered(state: State) -> State | None:
    """Returns the state to go on from; None if nothing served yet, so that the next controller starts from nothing.

    Args:
        state: State of the last checkpoint.
    """
    actual, running = least(state), state.running
    restarts = {name: replace(r, waiting=False) for name, r in state.restarts.items()}
    settled = replace(
        essential(state),
        actual=actual,
        restarts=restarts,
        inflight={},
        pending=None,
        queued=None,
        rolling_back=False,
        asked=None,
    )
    if state.phase in (Phase.STOPPING, Phase.STOPPED):
        return settled
    if running is None or not actual.gateway:
        return None
    settled = replace(settled, wanted=running.wanted)
    if state.phase is Phase.CHANGING and not answers_without(running, state.lost):
        # The generation that still answers serves until the next plan, which comes at once.
        return replace(settled, phase=Phase.READY, restore_at_s=state.now_s)
    if state.phase is Phase.CHANGING:
        target = without_lost(running, state.lost | state.cordoned_gpus)
        stages = stages_to(actual, running, target, standby=state.standby, lost=state.lost)
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
        if isinstance(action, a.Flip):
            actual = replace(actual, fronts={name: f for name, f in actual.fronts.items() if name != action.graph})
        elif isinstance(action, _REMOVING):
            actual = actual.after(action)
    return actual
