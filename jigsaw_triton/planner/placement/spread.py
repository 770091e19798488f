"""Spreads slices over the nodes whose processors they share, where the usual placement would exceed those of one node.

The program of plans adds up the processors of all nodes, and its placement uses few GPUs. So the slices of a plan that
all processors together carry may be on too few nodes. Here each slice, the busiest first, goes to the node that is
least busy so far (longest processing time first).
"""

from collections.abc import Mapping
from dataclasses import replace

from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.domain.processors import processor_limit, processor_load, slice_processors
from jigsaw_triton.planner.placement.greedy import Filling


def spread(plan: Plan, problem: Problem) -> Plan:
    """Returns the plan with its slices of processors on other nodes, or as it is if it need not or cannot change.

    Args:
        plan: Plan. If it must survive a loss, its slices are spread already.
        problem: Problem that it was made for, prepared.
    """
    load, limit = processor_load(plan, problem), processor_limit(problem)
    if load is None or limit is None or limit.nodes < 2 or not load.exceeded or problem.survive:
        return plan
    own = [gpu for gpu in plan.gpus if gpu.model in limit.boards]
    if any(len(placed.models) > 1 for gpu in own for placed in gpu.layout):
        return plan
    slices = [
        (slice_processors(plan, limit, gpu.model, placed) or 0.0, placed.placement.slice, placed.models[0])
        for gpu in own
        for placed in gpu.layout
    ]
    nodes: dict[str, list[Filling]] = {}
    for gpu in problem.cluster.gpus:
        if gpu.board.name in limit.boards:
            nodes.setdefault(gpu.id.node, []).append(Filling(gpu, ()))
    busy = dict.fromkeys(nodes, 0.0)
    # The gateway's time, which is on the first node in use.
    busy[min(nodes)] = sum(map(_total, load.busy_by_node.values())) - sum(used for used, *_ in slices)
    for used, kind, model in sorted(slices, key=lambda one: -one[0]):
        for node in sorted(nodes, key=lambda node: (busy[node], node)):
            if any(filling.take(kind, model) for filling in nodes[node]):
                busy[node] += used
                break
        else:
            return plan
    others = (gpu for gpu in plan.gpus if gpu.model not in limit.boards)
    found = (filling.planned() for fillings in nodes.values() for filling in fillings if filling.models)
    gpus = tuple(sorted((*others, *found), key=lambda gpu: gpu.id))
    return replace(plan, gpus=gpus, gpus_used=len(gpus))


def _total(busy: Mapping[str, float]) -> float:
    return sum(busy.values())
