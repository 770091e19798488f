"""GPUs that fall off the bus, and come back. Pure.

A lost GPU stays part of the cluster. The planner gets the GPUs that are left (`Fleet.around_others`), and a change of
which are left is a reason to plan again.
"""

from collections.abc import Collection
from dataclasses import replace

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.gpus.model import GpuId
from jigsaw_triton.lists import limited


def absorb_lost(state: State, lost: Collection[GpuId]) -> tuple[State, tuple[a.Report, ...]]:
    """Notes which GPUs are lost now, and reports those that are newly lost or back."""
    cluster = state.wanted.cluster if state.wanted is not None else None
    now = frozenset(gpu.id for gpu in cluster.gpus if gpu.id in lost) if cluster is not None else frozenset()
    reports = []
    for gpu in sorted(now - state.lost):
        names = sorted(w.name for w in state.actual.workers.values() if w.place is not None and w.place.gpu == gpu)
        workers = f", and with it {', '.join(names)}" if names else ""
        reports.append(a.Report("error", f"GPU {gpu} is lost{workers}; planning on the others"))
    reports += [a.Report("gpu", f"GPU {gpu} is back; planning with it") for gpu in sorted(state.lost - {*lost})]
    if not reports:
        return replace(state, lost=now), ()
    reason = limited([report.text.partition(";")[0] for report in reports], separator="; ")
    return replace(state, lost=now, replan=reason, replan_at_s=state.now_s), tuple(reports)


def absorb_cordon(state: State, node: str, *, cordoned: bool, drain: bool) -> State:
    """Notes that the user has withdrawn a node from new plans, or has returned it.

    Args:
        state: State of the core.
        node: Name of the node.
        cordoned: True to withdraw it. A node that is returned is planned with at once.
        drain: True to plan at once without it.
    """
    nodes = state.cordoned | {node} if cordoned else state.cordoned - {node}
    changed = nodes != state.cordoned
    state = replace(state, cordoned=nodes)
    if not (drain or (changed and not cordoned)):
        return state
    reason = f"node {node} is drained" if cordoned else f"node {node} is back in service"
    # Whoever drains a node waits for the outcome, which an earlier error is not.
    error, code = ("", 0) if drain else (state.error, state.error_code)
    return replace(state, replan=reason, replan_at_s=state.now_s, error=error, error_code=code)


def without_lost(generation: Generation, lost: Collection[GpuId]) -> Generation:
    """Returns a generation whose cluster has no lost GPU, so that no replica stands in on one during a change.

    If all were lost when its plan was asked for, the planner has found some of them back, and the cluster stays whole.
    """
    cluster = generation.wanted.cluster
    left = tuple(gpu for gpu in cluster.gpus if gpu.id not in lost)
    return replace(generation, wanted=replace(generation.wanted, cluster=replace(cluster, gpus=left or cluster.gpus)))
