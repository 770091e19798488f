"""The chains of tasks that a plan has in one slice each, so that a worker does them in one call.

- Each of their tasks may follow the one before it (`graph.chain.followers`).
- The same slices hold all of their tasks, one variant of each.

A plan reckons with that: in a shared slice such tasks wait for the models outside of their chain alone, since there is
one batch of theirs under way at a time.
"""

from collections.abc import Mapping

from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.graph.chain import Chain, followers, runs
from jigsaw_triton.graph.model import Task, TaskGraph
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan

Homes = Mapping[tuple[GpuId, Placement], PlacedModel]
"""Slice -> the one model there that does a task."""


def chains(graph: TaskGraph, plan: Plan) -> tuple[Chain, ...]:
    """The longest chains of a graph that can be fused, in the order of the graph.

    Args:
        graph: Of the plan.
        plan: Says which models share a slice.
    """
    homes = {task: home for task in graph.tasks if (home := _homes(graph, task, plan)) is not None}
    after = {
        before: task
        for before, task in followers(graph).items()
        if before in homes and task in homes and _same_slices(graph.tasks[task], homes[before], homes[task])
    }
    return tuple(Chain(tasks, tuple(_variant(homes[task]) for task in tasks)) for tasks in runs(after))


def _homes(graph: TaskGraph, task: str, plan: Plan) -> Homes | None:
    """Where a task is done; None where a slice does it by several models, or not all slices by one variant."""
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
    """Whether the same slices hold a task and the one before it.

    And where the rows of a request make batches, batches of one size: how many batches a request's rows are is in what
    the plan says of each task's latency.
    """
    if before.keys() != homes.keys():
        return False
    return task.for_each is None or all(before[at].batch == homes[at].batch for at in homes)
