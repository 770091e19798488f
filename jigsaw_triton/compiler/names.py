"""Names of what a plan compiles to. What a generation brings carries its number; fronts and workers do not."""

from collections import Counter
from collections.abc import Iterable

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import GpuId, Placement


def worker(gpu: GpuId, placement: Placement, process: int = 0) -> str:
    """`<node>-<gpu index>-<slice>-<start>`: the place, so that what stays in place keeps its name.

    Args:
        gpu: GPU of the instance.
        placement: Slice and start on the GPU.
        process: Number of the process; see `bundle.Worker`. From 1 on, the name ends with `-p<process>`.
    """
    place = f"{gpu.node}-{gpu.index}-{placement.slice}-{placement.start}"
    return f"{place}-p{process}" if process else place


def worker_model(graph: str, task: str, variant: str, generation: int) -> str:
    """`<graph>.<task>.<variant>.g<generation>`."""
    return f"{graph}.{task}.{variant}.g{generation}"


def route(graph: str, task: str, generation: int) -> str:
    """`<graph>.<task>.g<generation>`: of a task's route, and of its one-task front."""
    return f"{graph}.{task}.g{generation}"


def steps_worker(graph: str) -> str:
    """`steps-<graph>`."""
    return f"steps-{graph}"


def step_model(graph: str, step: str, generation: int) -> str:
    """`<graph>.<step>.step.g<generation>`."""
    return f"{graph}.{step}.step.g{generation}"


def pipeline(graph: str, generation: int, *, apart: bool = False) -> str:
    """`<graph>.pipeline.g<generation>`; `<graph>.pipeline.apart.g<generation>` where chains are taken apart."""
    return f"{graph}.pipeline{'.apart' if apart else ''}.g{generation}"


def require_unique(names: Iterable[str], *, where: str) -> None:
    """Refuses names that two models of one server would share.

    Args:
        names: Names of all models of the server.
        where: Name of the server, for the message.

    Raises:
        InputError: Two names are the same: a task called `pipeline`, or dots in names that make two read alike.
    """
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InputError(
            f"two models would be named {twice[0]!r}",
            where=where,
            hint="rename one of the graphs, tasks or variants that the name is made of",
        )
