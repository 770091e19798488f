"""Spreads slices over the nodes whose processors they share, where the usual placement would exceed those of one node.

The program of plans adds up the processors of all nodes, and its placement uses few GPUs. So the slices of a plan that
all processors together carry may be on too few nodes. Here the slices that run already stay, as far as their node
carries them, and each other slice, the busiest first, goes to the node that is least busy so far (longest processing
time first). If that exceeds a node, all slices are placed anew.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from jigsaw_triton.gpus.model import GpuId
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, Plan, PlannedGpu
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.domain.processors import (
    ProcessorLimit,
    processor_limit,
    processor_load,
    slice_processors,
)
from jigsaw_triton.planner.placement.greedy import Filling
from jigsaw_triton.planner.placement.placement import running_slices

Staying = Mapping[GpuId, tuple[PlacedSlice, ...]]
"""Slices that stay where they run, by GPU."""


@dataclass(frozen=True, slots=True)
class _Slices:
    """Slices of processors.

    Attributes:
        used: (Kind of slice, model) -> processors that one of these slices keeps busy.
        counts: (Kind of slice, model) -> number of slices.
        gateway: Processors that the gateway keeps busy.
    """

    used: Mapping[tuple[str, PlacedModel], float]
    counts: Counter[tuple[str, PlacedModel]]
    gateway: float


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
    used = {
        (placed.placement.slice, placed.models[0]): slice_processors(plan, limit, gpu.model, placed) or 0.0
        for gpu in own
        for placed in gpu.layout
    }
    counts = Counter((placed.placement.slice, placed.models[0]) for gpu in own for placed in gpu.layout)
    busy = sum(sum(one.values()) for one in load.busy_by_node.values())
    slices = _Slices(used, counts, busy - sum(used[key] * count for key, count in counts.items()))
    others = tuple(gpu for gpu in plan.gpus if gpu.model not in limit.boards)
    for staying in (_staying(slices, problem, limit), {}):
        gpus = _placed(slices, staying, problem, limit)
        if gpus is None:
            continue
        made = replace(
            plan, gpus=tuple(sorted((*others, *gpus), key=lambda gpu: gpu.id)), gpus_used=len(others) + len(gpus)
        )
        exceeds = processor_load(made, problem)
        if not staying or exceeds is None or not exceeds.exceeded:
            return made
    return plan


def _staying(slices: _Slices, problem: Problem, limit: ProcessorLimit) -> Staying:
    """Returns the running slices that the plan has, too, as far as the processors of their node carry them."""
    left = Counter(slices.counts)
    boards = {gpu.id: gpu.board.name for gpu in problem.cluster.gpus}
    busy = dict.fromkeys(_nodes(problem, limit), 0.0)
    busy[min(busy)] = slices.gateway
    found: dict[GpuId, list[PlacedSlice]] = {}
    for gpu, running in sorted(running_slices(problem.cluster, problem.running).items()):
        for placement, models in sorted(running.items()) if boards[gpu] in limit.boards else ():
            key = (placement.slice, models[0])
            fits = len(models) == 1 and left[key] > 0 and busy[gpu.node] + slices.used[key] <= limit.processors
            if fits:
                left[key] -= 1
                busy[gpu.node] += slices.used[key]
                found.setdefault(gpu, []).append(PlacedSlice(placement, tuple(models)))
    return {gpu: tuple(placed) for gpu, placed in found.items()}


def _placed(
    slices: _Slices, staying: Staying, problem: Problem, limit: ProcessorLimit
) -> tuple[PlannedGpu, ...] | None:
    """Returns the GPUs in use with all slices on them; None if a slice finds no place."""
    nodes = {
        node: [Filling(gpu, staying.get(gpu.id, ())) for gpu in problem.cluster.gpus if gpu.id in gpus]
        for node, gpus in _nodes(problem, limit).items()
    }
    busy = dict.fromkeys(nodes, 0.0)
    # The gateway's time, which is on the first node in use.
    busy[min(nodes)] = slices.gateway
    left = Counter(slices.counts)
    for gpu, placed in staying.items():
        for one in placed:
            key = (one.placement.slice, one.models[0])
            left[key] -= 1
            busy[gpu.node] += slices.used[key]
    for kind, model in sorted(left.elements(), key=lambda key: -slices.used[key]):
        for node in sorted(nodes, key=lambda node: (busy[node], node)):
            if any(filling.take(kind, model) for filling in nodes[node]):
                busy[node] += slices.used[kind, model]
                break
        else:
            return None
    fillings = (filling for own in nodes.values() for filling in own)
    return tuple(filling.planned() for filling in fillings if filling.models or filling.staying)


def _nodes(problem: Problem, limit: ProcessorLimit) -> dict[str, set[GpuId]]:
    """Returns the GPUs of each node that has such boards."""
    nodes: dict[str, set[GpuId]] = {}
    for gpu in problem.cluster.gpus:
        if gpu.board.name in limit.boards:
            nodes.setdefault(gpu.id.node, set()).add(gpu.id)
    return nodes
