"""Checks of the user's requests against the state of the deployment. Pure functions."""

from collections.abc import Collection

from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.spec.words import nearest, shown

_ENDING = (Phase.STOPPING, Phase.STOPPED)


def refusal(state: State) -> str | None:
    """Returns the reason why a deploy request cannot be accepted now; None if it can."""
    if state.phase in _ENDING:
        return "the deployment is being taken down"
    if state.queued is not None or (state.asked is not None and state.phase in (Phase.SOLVING, Phase.CHANGING)):
        return "another deploy is under way"
    return None


def check_free(state: State) -> None:
    """Checks that the user may ask for a change.

    Raises:
        StateError: Another deploy is in progress, or the deployment is being taken down.
    """
    reason = refusal(state)
    if reason is not None:
        goal = "stopped" if state.phase in _ENDING else "ready"
        raise StateError(reason, hint=f"wait for it: `jigsaw-triton status --wait {goal}`")


def check_node(state: State, node: str) -> None:
    """Checks that a deployment has a node, which is to be cordoned or uncordoned.

    Raises:
        StateError: Nothing is deployed, or the deployment is being taken down.
        InputError: The cluster has no such node.
    """
    if state.wanted is None or state.phase in _ENDING:
        raise StateError("nothing is deployed", hint="deploy first: `jigsaw-triton deploy`")
    names = sorted({gpu.id.node for gpu in state.wanted.cluster.gpus})
    if node not in names:
        raise InputError(f"the cluster has no node {shown(node)}", hint=nearest(node, names, "nodes"))


def check_removal(state: State, graphs: Collection[str]) -> None:
    """Checks that a deployment serves only these graphs, and that none is about to join them.

    Raises:
        StateError: Another deploy is in progress, other graphs are served, or the deployment is being taken down.
    """
    check_free(state)
    if state.running is None or state.running.wanted.graphs.keys() != set(graphs):
        hint = "list them with `jigsaw-triton status`, and run the command again"
        raise StateError("graphs have joined or left the deployment meanwhile", hint=hint)
