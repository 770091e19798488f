"""Spreads slices over the nodes whose processors they share, where the usual placement would exceed those of one node.

The program of plans adds up the processors of all nodes, and its placement uses few GPUs. So the slices of a plan that
all processors together carry may be on too few nodes, or on too few of those that a loss leaves. Here the slices that
run already stay, as far as their node carries them, and each other slice, the busiest first, goes to the node that is
least busy so far (longest processing time first). If that exceeds a node, all slices are placed anew.
"""

from collections import Counter
from collections.abc import Callable, Mapping
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
from jigsaw_triton.planner.domain.tolerances import ROUNDING
from jigsaw_triton.planner.placement.greedy import Filling
from jigsaw_triton.planner.placement.placement import running_slices
from jigsaw_triton.planner.solver.deadline import Deadline

Staying = Mapping[GpuId, tuple[PlacedSlice, ...]]
"""Slices that stay where they run, by GPU."""

Key = tuple[str, PlacedModel]
"""Kind of a slice and its model."""

_WORTH = 0.01
"""Relative increase of what the processors carry that is worth a further slice. A convention."""


@dataclass(frozen=True, slots=True)
class _Slices:
    """Slices of processors.

    Attributes:
        busy: (Kind of slice, model) -> processors that all of these slices keep busy.
        counts: (Kind of slice, model) -> number of slices.
        gateway: Processors that the gateway keeps busy.
    """

    busy: Mapping[Key, float]
    counts: Counter[Key]
    gateway: float

    def used(self, key: Key) -> float:
        """Returns the processors that one of these slices keeps busy."""
        return self.busy[key] / self.counts[key]

    def with_one_more(self) -> "_Slices":
        """Returns the slices with one more of those that keep the most processors busy."""
        return replace(self, counts=self.counts + Counter([max(self.busy, key=self.used)]))


def spread(plan: Plan, problem: Problem, scale: Callable[[Plan], float], time: Deadline) -> Plan:
    """Returns a plan that exceeds a node with its slices of processors on other nodes, as far as that helps.

    A number of slices that the number of nodes does not divide leaves one node busier than the others. Where this is
    why the plan exceeds a node, it gets more slices of the same kinds.

    Args:
        plan: Plan.
        problem: Problem that it was made for, prepared.
        scale: Returns the largest factor by which the demands of a plan can be multiplied.
        time: Deadline of the whole search. One other plan is tried even after it.
    """
    load, limit = processor_load(plan, problem), processor_limit(problem)
    if load is None or limit is None or limit.nodes < 2:
        return plan
    own = [gpu for gpu in plan.gpus if gpu.model in limit.boards]
    if any(len(placed.models) > 1 for gpu in own for placed in gpu.layout):
        return plan
    busy: dict[Key, float] = {}
    counts: Counter[Key] = Counter()
    for gpu in own:
        for placed in gpu.layout:
            key = (placed.placement.slice, placed.models[0])
            busy[key] = busy.get(key, 0.0) + (slice_processors(plan, limit, gpu.model, placed) or 0.0)
            counts[key] += 1
    total = sum(sum(one.values()) for one in load.busy_by_node.values())
    slices = _Slices(busy, counts, total - sum(busy.values()))
    best, carried = plan, scale(plan)
    for _ in range(limit.nodes * len(counts)):
        for staying in (_staying(slices, problem, limit), {}):
            gpus = _placed(slices, staying, problem, limit)
            if gpus is not None:
                made = _with(plan, slices.counts - counts, gpus, problem, limit)
                if (found := scale(made)) >= 1 - ROUNDING:
                    return made
                if found > carried * (1 + _WORTH):
                    best, carried = made, found
            if time.over:
                return best
        slices = slices.with_one_more()
    return best


def _with(
    plan: Plan, more: Counter[Key], gpus: tuple[PlannedGpu, ...], problem: Problem, limit: ProcessorLimit
) -> Plan:
    """Returns a plan with its slices of processors on these GPUs, among which are further ones."""
    added = Counter((m.graph, m.task, m.variant, kind, m.instances, m.batch) for kind, m in more.elements())
    graphs = {}
    for name, graph in plan.graphs.items():
        tasks = {}
        for task, planned in graph.tasks.items():
            keys = [(name, task, s.variant, s.slice, s.instances, s.batch) for s in planned.segments]
            segments = [replace(s, count=s.count + added[key]) for s, key in zip(planned.segments, keys, strict=True)]
            tasks[task] = replace(planned, segments=tuple(segments))
        graphs[name] = replace(graph, tasks=tasks)
    board = next(iter(limit.boards.values()))
    slices = sum(board.profiles[kind].compute_slices * count for (kind, _), count in more.items())
    everything = sorted((*(gpu for gpu in plan.gpus if gpu.model not in limit.boards), *gpus), key=lambda gpu: gpu.id)
    return replace(
        plan,
        graphs=graphs,
        gpus=tuple(everything),
        slices_used=plan.slices_used + slices,
        gpus_used=len(everything),
        cost=problem.cost_of(everything),
    )


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
            fits = len(models) == 1 and left[key] > 0 and busy[gpu.node] + slices.used(key) <= limit.processors
            if fits:
                left[key] -= 1
                busy[gpu.node] += slices.used(key)
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
    # The gateway uses processor time of the first node in use.
    busy[min(nodes)] = slices.gateway
    left = Counter(slices.counts)
    for gpu, placed in staying.items():
        for one in placed:
            key = (one.placement.slice, one.models[0])
            left[key] -= 1
            busy[gpu.node] += slices.used(key)
    for kind, model in sorted(left.elements(), key=lambda key: -slices.used(key)):
        for node in sorted(nodes, key=lambda node: (busy[node], node)):
            if any(filling.take(kind, model) for filling in nodes[node]):
                busy[node] += slices.used((kind, model))
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
