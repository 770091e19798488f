"""Names of compiled models, routes and workers.

Names of models and routes carry the number of the generation that added them. Names of graphs' fronts and of workers do
not.
"""

from collections import Counter
from collections.abc import Iterable

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import GpuId, Placement


def worker(gpu: GpuId, placement: Placement, process: int = 0) -> str:
    """Returns `<node>-<gpu index>-<slice>-<start>`, so that a worker that stays in place keeps its name.

    Args:
        gpu: GPU of the instance.
        placement: Slice and its start on the GPU.
        process: Number of the process; see `bundle.Worker`. The name ends with `-p<process>` unless it is 0.
    """
    place = f"{gpu.node}-{gpu.index}-{placement.slice}-{placement.start}"
    return f"{place}-p{process}" if process else place


def worker_model(graph: str, task: str, variant: str, generation: int) -> str:
    """Returns `<graph>.<task>.<variant>.g<generation>`."""
    return f"{graph}.{task}.{variant}.g{generation}"


def route(graph: str, task: str, generation: int) -> str:
    """Returns `<graph>.<task>.g<generation>`, the name of a task's route and of its one-task front."""
    return f"{graph}.{task}.g{generation}"


def steps_worker(graph: str) -> str:
    """Returns `steps-<graph>`."""
    return f"steps-{graph}"


def step_model(graph: str, step: str, generation: int) -> str:
    """Returns `<graph>.<step>.step.g<generation>`."""
    return f"{graph}.{step}.step.g{generation}"


def pipeline(graph: str, generation: int, *, apart: bool = False) -> str:
    """Returns `<graph>.pipeline.g<generation>`, with `.apart` before `.g` for the form without chains."""
    return f"{graph}.pipeline{'.apart' if apart else ''}.g{generation}"


def require_unique(names: Iterable[str], *, where: str) -> None:
    """Checks that the models of a server have different names.

    Two names can be equal if a task is named `pipeline`, or if the parts of names contain dots.

    Args:
        names: Names of all models of the server.
        where: Name of the server, for the error message.

    Raises:
        InputError: Two names are equal.
    """
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InputError(
            f"two models would be named {twice[0]!r}",
            where=where,
            hint="rename one of the graphs, tasks or variants in this name",
        )
