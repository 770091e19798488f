"""Drawing a plan: its GPUs as boards of slices."""

from collections.abc import Iterable

from jigsaw_triton.gpus.board import Piece, Strip, draw_svg
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.model import Gpu
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, Plan

_FOREIGN = "taken"
"""Label of slices that somebody else uses."""


def svg(plan: Plan, gpus: Iterable[Gpu] | None = None) -> str:
    """Returns GPUs with the slices of a plan on them, as an SVG document.

    Args:
        plan: The plan.
        gpus: GPUs to draw; the GPUs that the plan uses by default.

    Raises:
        InputError: The catalog lacks a board of the plan, and `gpus` is not given.
    """
    return draw_svg(strips(plan, planned_gpus(plan) if gpus is None else gpus))


def planned_gpus(plan: Plan) -> tuple[Gpu, ...]:
    """Returns the GPUs that a plan uses, with the boards of the catalog.

    Raises:
        InputError: The catalog lacks a board of the plan.
    """
    return tuple(Gpu(gpu.id, board(gpu.model, where=f"GPU {gpu.id} of the plan")) for gpu in plan.gpus)


def strips(plan: Plan, gpus: Iterable[Gpu]) -> list[Strip]:
    """Returns the GPUs with the slices of the plan and those of others on them, in the order given."""
    layouts = {gpu.id: gpu.layout for gpu in plan.gpus}
    return [
        Strip(
            str(gpu.id),
            gpu.board,
            (
                *(_piece(placed, plan) for placed in layouts.get(gpu.id, ())),
                *(Piece(placement, _FOREIGN) for placement in gpu.foreign),
            ),
        )
        for gpu in gpus
    ]


def task_label(model: PlacedModel, plan: Plan) -> str:
    """Returns the name of a model's task, preceded by its graph if the plan has several."""
    return f"{model.graph}.{model.task}" if len(plan.graphs) > 1 else model.task


def _piece(placed: PlacedSlice, plan: Plan) -> Piece:
    """Returns a slice coloured by the task of its first model; a model alone in it is described in full."""
    models = placed.models
    if len(models) == 1:
        (model,) = models
        label = f"{model.task}\n{model.variant}\n{model.instances}x b{model.batch}"
    else:
        label = "\n".join(f"{model.task} {model.variant}" for model in models)
    return Piece(placed.placement, label, task_label(models[0], plan) if models else "")
