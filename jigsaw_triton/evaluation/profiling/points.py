"""What is to be measured: variants x slices x instances x batch sizes. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from jigsaw_triton.compiler.worker_config import EMULATED
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import Board, Cluster, Gpu
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.read import LIMIT_COUNT
from jigsaw_triton.profiles.table import ProfileKey, ProfileTable
from jigsaw_triton.spec.words import nearest


@dataclass(frozen=True, slots=True)
class Grid:
    """Configurations that each variant is measured in.

    Attributes:
        slices: Kinds of MIG instance.
        instances: Triton instance counts.
        batches: Batch sizes.
    """

    slices: tuple[str, ...] = ("1g",)
    instances: tuple[int, ...] = (1, 2)
    batches: tuple[int, ...] = (1, 2, 4, 8)


def measurable(cluster: Cluster) -> dict[str, Gpu]:
    """A GPU of each model of board in a cluster.

    Raises:
        InputError: MIG is emulated on a board that is not there, so that what the models take says nothing of it.
    """
    gpus = {gpu.board.name: gpu for gpu in reversed(cluster.gpus)}
    absent = [name for name, gpu in sorted(gpus.items()) if cluster.driver == "emulated" and gpu.board.arch != "cpu"]
    if absent:
        raise InputError(
            f"nothing can be measured on {', '.join(absent)}: MIG is emulated, the models run on this processor",
            where="--gpus",
            hint="write --gpus 1xcpu to measure this processor, or bring a profiles.csv that was measured on the board",
        )
    return dict(sorted(gpus.items()))


def chosen(graph: TaskGraph, tasks: Collection[str], variants: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The variants to measure, by task, in the graph's order; `emulated` ones, which have no time of their own, not.

    Args:
        graph: That has them.
        tasks: Names; all where there are none.
        variants: Names; all of the tasks' where there are none.

    Raises:
        InputError: The graph has no such task, or the tasks have no such variant, or nothing is left.
    """
    for name in tasks:
        if name not in graph.tasks:
            hint = nearest(name, graph.tasks, "tasks of the graph")
            raise InputError(f"there is no task '{name}'", where="--task", hint=hint)
    within = [task for task in graph.tasks.values() if not tasks or task.name in tasks]
    known = {variant.name for task in within for variant in task.variants}
    for name in variants:
        if name not in known:
            raise InputError(f"there is no variant '{name}'", where="--variant", hint=nearest(name, known, "variants"))
    found = {
        task.name: tuple(
            v.name for v in task.variants if v.template != EMULATED and (not variants or v.name in variants)
        )
        for task in within
    }
    if not any(found.values()):
        raise InputError(
            "there is nothing to measure: the variants are emulated, they take the time that a profile says",
            where=graph.name,
            hint="give the graph variants with models, or write profiles.csv by hand with source `assumed`",
        )
    return {task: names for task, names in found.items() if names}


def points(board: Board, variants: dict[str, tuple[str, ...]], grid: Grid) -> tuple[ProfileKey, ...]:
    """Every configuration of the variants on a board, those of one variant together, those of one slice next.

    Args:
        board: Of the GPU.
        variants: By task.
        grid: What each is measured in.

    Raises:
        InputError: The board has no such slice, or a number of the grid is not above 0 or too large.
    """
    for kind in grid.slices:
        if kind not in board.profiles:
            hint = nearest(kind, board.profiles, f"slices of {board.name}")
            raise InputError(f"{board.name} has no slice '{kind}'", where="--slices", hint=hint)
    for flag, numbers in (("--instances", grid.instances), ("--batches", grid.batches)):
        for number in numbers:
            if not 1 <= number <= LIMIT_COUNT:
                hint = f"write numbers from 1 to {LIMIT_COUNT}, with commas between"
                raise InputError(f"{number} is out of range", where=flag, hint=hint)
    return tuple(
        ProfileKey(board.name, task, variant, kind, instances, batch)
        for task, names in variants.items()
        for variant in names
        for kind in dict.fromkeys(grid.slices)
        for instances in sorted(set(grid.instances))
        for batch in sorted(set(grid.batches))
    )


def unmeasured(keys: Sequence[ProfileKey], table: ProfileTable) -> tuple[ProfileKey, ...]:
    """Those that the table has no measured row of; what is fitted or assumed in it is worth measuring."""
    rows = {key: table.get(key) for key in keys}
    return tuple(key for key, row in rows.items() if row is None or row.source != "measured")
