"""Enumerates the configurations to measure: variants x slices x instances x batch sizes. Does no I/O."""

from collections.abc import Collection
from dataclasses import dataclass

from jigsaw_triton.compiler.worker_config import EMULATED
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import Board, Cluster, Gpu
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.read import LIMIT_COUNT
from jigsaw_triton.profiles.table import ProfileKey
from jigsaw_triton.spec.words import nearest


@dataclass(frozen=True, slots=True)
class Grid:
    """Configurations in which each variant is measured.

    Attributes:
        slices: Slice kinds; empty for all of the board.
        instances: Triton instance counts.
        batches: Batch sizes.
    """

    slices: tuple[str, ...]
    instances: tuple[int, ...]
    batches: tuple[int, ...]


def measurable(cluster: Cluster) -> dict[str, Gpu]:
    """Returns one GPU of each board in a cluster, by the board's name.

    Raises:
        InputError: MIG is emulated for a GPU. The models would run on the processor, so their times would say nothing
            about the GPU.
    """
    gpus = {gpu.board.name: gpu for gpu in reversed(cluster.gpus)}
    absent = [name for name, gpu in sorted(gpus.items()) if cluster.driver == "emulated" and gpu.board.arch != "cpu"]
    if absent:
        raise InputError(
            f"nothing can be measured on {', '.join(absent)}: MIG is emulated, so models would run on this processor",
            where="--gpus",
            hint="use --gpus 1xcpu to measure this processor, or a profiles.csv that was measured on the GPU",
        )
    return dict(sorted(gpus.items()))


def chosen(graph: TaskGraph, tasks: Collection[str], variants: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Returns the names of the variants to measure by task, in the graph's order.

    `emulated` variants are left out, since their times come from the profile itself.

    Args:
        graph: Graph with the variants.
        tasks: Names of tasks; empty for all tasks.
        variants: Names of variants; empty for all variants of the tasks.

    Raises:
        InputError: The graph has no such task, the tasks have no such variant, or no variant is left.
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
            "there is nothing to measure: all variants are emulated, and their times come from the profile itself",
            where=graph.name,
            hint="add variants with models to the graph, or write profiles.csv by hand with source `assumed`",
        )
    return {task: names for task, names in found.items() if names}


def configurations(board: Board, variants: dict[str, tuple[str, ...]], grid: Grid) -> tuple[ProfileKey, ...]:
    """Returns every configuration of the variants on a board, grouped by variant and then by slice kind.

    Args:
        board: Model of the GPU.
        variants: Names of variants by task.
        grid: Configurations of each variant.

    Raises:
        InputError: The board has no such slice, or a number in the grid is out of range.
    """
    for kind in grid.slices:
        if kind not in board.profiles:
            hint = nearest(kind, board.profiles, f"slices of {board.name}")
            raise InputError(f"{board.name} has no slice '{kind}'", where="--slices", hint=hint)
    for flag, numbers in (("--instances", grid.instances), ("--batches", grid.batches)):
        for number in numbers:
            if not 1 <= number <= LIMIT_COUNT:
                hint = f"write numbers from 1 to {LIMIT_COUNT}, separated by commas"
                raise InputError(f"{number} is out of range", where=flag, hint=hint)
    return tuple(
        ProfileKey(board.name, task, variant, kind, instances, batch)
        for task, names in variants.items()
        for variant in names
        for kind in dict.fromkeys(grid.slices or _kinds(board))
        for instances in sorted(set(grid.instances))
        for batch in sorted(set(grid.batches))
    )


def _kinds(board: Board) -> tuple[str, ...]:
    """Returns the slice kinds of a board. Those of a processor are all alike: each has all cores."""
    return ("1g",) if board.arch == "cpu" else tuple(board.profiles)
