"""The MIG instances in which two plans differ."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan

Place = tuple[GpuId, Placement]


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One MIG instance in which two plans differ.

    Attributes:
        gpu: GPU of the instance.
        placement: Slice and start of the instance on the GPU.
        kind: `add` or `remove` an instance, or `change` the models of an instance that stays. If `before` equals
            `after`, the models have new content and are loaded again.
        before: Models of the instance in the old plan.
        after: Models of the instance in the new plan.
    """

    gpu: GpuId
    placement: Placement
    kind: Literal["add", "remove", "change"]
    before: tuple[PlacedModel, ...]
    after: tuple[PlacedModel, ...]

    def __str__(self) -> str:
        place = f"{self.gpu} {self.placement}"
        match self.kind:
            case "add":
                return f"+ {place} {_models(self.after)}"
            case "remove":
                return f"- {place} {_models(self.before)}"
            case "change":
                return f"~ {place} {_models(self.before)} -> {_models(self.after)}"


def difference(before: Plan | None, after: Plan, reloads: Collection[Place] = ()) -> tuple[Change, ...]:
    """Lists the instances in which the plans differ, sorted by GPU and start.

    Args:
        before: Old plan; None if there is none, in which case every instance of the new plan is added.
        after: New plan.
        reloads: Instances whose models are loaded again although the plans agree, because their content is new.
    """
    old = _places(before) if before is not None else {}
    new = _places(after)
    changes: list[Change] = []
    for place in sorted(old.keys() | new.keys()):
        was, becomes = old.get(place), new.get(place)
        if was is None and becomes is not None:
            changes.append(Change(*place, "add", (), becomes))
        elif becomes is None and was is not None:
            changes.append(Change(*place, "remove", was, ()))
        elif was is not None and becomes is not None and (was != becomes or place in reloads):
            changes.append(Change(*place, "change", was, becomes))
    return tuple(changes)


def _places(plan: Plan) -> dict[Place, tuple[PlacedModel, ...]]:
    return {
        (gpu.id, placed.placement): tuple(sorted(placed.models, key=str))
        for gpu in plan.gpus
        for placed in gpu.layout
        if placed.models
    }


def _models(models: tuple[PlacedModel, ...]) -> str:
    return ", ".join(f"{m.graph}.{m.task} {m.variant} instances {m.instances} batch {m.batch}" for m in models)
