"""Checks that a plan is one for the graphs and the cluster that it is compiled for."""

from collections.abc import Mapping

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.plan import PlacedSlice, Plan

PLAN_AGAIN = "plan again: the plan was made for another graph or cluster"


def check_plan(plan: Plan, graphs: Mapping[str, TaskGraph], cluster: Cluster) -> None:
    """Checks that a plan has the graphs and tasks that are given, their models, and GPUs of the cluster.

    Args:
        plan: The plan.
        graphs: Graphs to compile, by name.
        cluster: Cluster to compile for.

    Raises:
        InputError: The plan does not match the graphs or the cluster.
    """
    for name in sorted(graphs.keys() ^ plan.graphs.keys()):
        where = "the plan" if name in graphs else "the graphs given"
        raise InputError(f"graph {name!r} is not in {where}", where=name, hint=PLAN_AGAIN)
    for name, graph in graphs.items():
        for task in sorted(graph.tasks.keys() ^ plan.graphs[name].tasks.keys()):
            where = "the plan" if task in graph.tasks else "the graph"
            raise InputError(f"task {task!r} is not in {where}", where=name, hint=PLAN_AGAIN)
    boards = {gpu.id: gpu.board for gpu in cluster.gpus}
    for gpu in plan.gpus:
        board = boards.get(gpu.id)
        if board is None or board.name != gpu.model:
            raise InputError(f"the cluster has no {gpu.model} at this index", where=f"GPU {gpu.id}", hint=PLAN_AGAIN)
        if reason := fits(board, [placed.placement for placed in gpu.layout]):
            raise InputError(reason, where=f"GPU {gpu.id}", hint=PLAN_AGAIN)
        for placed in gpu.layout:
            _check_slice(placed, graphs, where=f"GPU {gpu.id}, {placed.placement}")


def _check_slice(placed: PlacedSlice, graphs: Mapping[str, TaskGraph], *, where: str) -> None:
    """Checks that the models of a slice exist and that none occurs twice.

    Raises:
        InputError: A model does not exist or occurs twice.
    """
    seen: set[tuple[str, str, str]] = set()
    for model in (*placed.models, *placed.standby):
        if model.graph not in graphs or model.task not in graphs[model.graph].tasks:
            raise InputError(f"there is no task {model.graph}.{model.task}", where=where, hint=PLAN_AGAIN)
        task = graphs[model.graph].tasks[model.task]
        if model.variant not in {variant.name for variant in task.variants}:
            raise InputError(
                f"task {model.graph}.{model.task} has no variant {model.variant!r}", where=where, hint=PLAN_AGAIN
            )
        replica = (model.graph, model.task, model.variant)
        if replica in seen:
            raise InputError(
                f"the slice holds {'.'.join(replica)} twice",
                where=where,
                hint="use one replica with more instances instead",
            )
        seen.add(replica)
