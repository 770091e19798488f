"""Outcomes of a step of the core: the new state, and the actions and reports for the shell. Pure."""

from collections.abc import Iterable
from dataclasses import replace

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.review import next_at_s
from jigsaw_triton.controller.core.state import Phase, State

Output = a.Issued | a.Report
Outcome = tuple[State, tuple[Output, ...]]


def issue(state: State, actions: Iterable[a.Action]) -> tuple[State, tuple[Output, ...]]:
    """Gives actions to the shell, each with an id and the node that carries it out."""
    inflight = dict(state.inflight)
    issued: list[Output] = []
    number = state.next_id
    for action in actions:
        inflight[number] = action
        issued.append(a.Issued(number, action, state.actual.node_of(action)))
        number += 1
    return replace(state, inflight=inflight, next_id=number), tuple(issued)


def ended(state: State, *, reviewed: bool = False) -> State:
    """Ends the request of the user, and sets the time of the next review."""
    if state.asked is not None:
        state = replace(state, asked_error=state.error, asked_error_code=state.error_code)
    return replace(state, asked=None, review_at_s=next_at_s(state, reviewed=reviewed))


def quiet(state: State, *, reviewed: bool = False) -> State:
    """Ends the request of the user, and starts the cooldown: another plan would fail or change nothing again."""
    return replace(ended(state, reviewed=reviewed), quiet_until_s=state.now_s + state.settings.cooldown_s)


def settled(state: State) -> Phase:
    """Returns the phase after a failed solve."""
    return Phase.READY if state.running is not None else Phase.STOPPING


def rate(rps: float) -> str:
    """Formats requests a second for people."""
    return f"{rps:.3g}/s" if rps < 1000 else f"{rps:.0f}/s"
