"""Finds the chains of tasks that a plan puts into one slice, so that a worker executes each chain in one call.

- Each task of a chain may follow the one before it (`graph.chain.followers`).
- The same slices hold all tasks of the chain, with one variant of each.

The planner relies on this: in a shared slice, the tasks of a chain wait only for the models outside their chain,
because the chain executes one batch at a time.
"""

from collections.abc import Mapping

from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.graph.chain import Chain, followers, runs
from jigsaw_triton.graph.model import Task, TaskGraph
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan

Homes = Mapping[tuple[GpuId, Placement], PlacedModel]
"""Slice -> the one model in it that executes a task."""


def chains(graph: TaskGraph, plan: Plan) -> tuple[Chain, ...]:
    """Returns the longest chains of a graph that can be fused, in the order of the graph.

    Args:
        graph: Graph of the plan.
        plan: Plan that determines which models share a slice.
    """
    homes = {task: home for task in graph.tasks if (home := _homes(graph, task, plan)) is not None}
    after = {
        before: task
        for before, task in followers(graph).items()
        if before in homes and task in homes and _same_slices(graph.tasks[task], homes[before], homes[task])
    }
    return tuple(Chain(tasks, tuple(_variant(homes[task]) for task in tasks)) for tasks in runs(after))


def _homes(graph: TaskGraph, task: str, plan: Plan) -> Homes | None:
    """Returns the slices that execute a task; None if one has several models of it, or the slices differ in variant."""
    homes: dict[tuple[GpuId, Placement], PlacedModel] = {}
    for gpu in plan.gpus:
        for placed_slice in gpu.layout:
            for model in placed_slice.models:
                if (model.graph, model.task) != (graph.name, task):
                    continue
                if homes.setdefault((gpu.id, placed_slice.placement), model) is not model:
                    return None
    return homes if len({model.variant for model in homes.values()}) == 1 else None


def _variant(homes: Homes) -> str:
    return next(iter(homes.values())).variant


def _same_slices(task: Task, before: Homes, homes: Homes) -> bool:
    """Returns True if the same slices hold a task and the one before it.

    If the task iterates over rows, both must also have the same batch size, because the planned latency of each task
    depends on the number of batches that a request's rows make.
    """
    if before.keys() != homes.keys():
        return False
    return task.for_each is None or all(before[at].batch == homes[at].batch for at in homes)
