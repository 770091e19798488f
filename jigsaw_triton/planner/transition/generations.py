"""Generations to which the models of a change belong. Pure.

A model belongs to a generation that has a model of the same variant with the same content, on whichever slice. So it
belongs to the running one, to the target, or to both. A model of neither remains from a change that failed, and gets no
requests, or it is on a GPU that is lost.
"""

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass

from jigsaw_triton.gpus.model import GpuId
from jigsaw_triton.planner.domain.difference import Place
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan

Content = Hashable
"""Value that is equal for models that give the same answers."""

Contents = Mapping[tuple[Place, str, str, str], Content]
"""(Place, graph, task, variant) -> content of the model."""


@dataclass(frozen=True, slots=True)
class Generations:
    """Contents of the models on the way from one generation to another.

    Attributes:
        existing: Contents of the models that exist.
        wanted: Contents of the target's models.
        running: Contents of all models of the running generation.
        target: Contents of all models of the target.
        separate: Graphs that both generations cannot serve side by side.
        reluctant: Graphs whose front has to be replaced before the target's models can serve it. They are served by the
            running generation as long as that carries enough.
        lost: GPUs whose models belong to no generation, since they answer nothing.
    """

    existing: Contents
    wanted: Contents
    running: Collection[Content]
    target: Collection[Content]
    separate: frozenset[str] = frozenset()
    reluctant: frozenset[str] = frozenset()
    lost: frozenset[GpuId] = frozenset()

    def of_existing(self, place: Place, model: PlacedModel) -> tuple[bool, bool]:
        """Returns True for each generation, the running one and the target, to which an existing model belongs."""
        return self._of(place, self.existing[(place, model.graph, model.task, model.variant)])

    def of_wanted(self, place: Place, model: PlacedModel) -> tuple[bool, bool]:
        """Returns True for each generation, the running one and the target, to which a model of the target belongs."""
        return self._of(place, self.wanted[(place, model.graph, model.task, model.variant)])

    def _of(self, place: Place, content: Content) -> tuple[bool, bool]:
        found = place[0] not in self.lost
        return found and content in self.running, found and content in self.target


def of_plans(running: Plan | None, plan: Plan, reloads: Collection[Place], separate: Iterable[str]) -> Generations:
    """Returns the generations of two plans whose variants have the same content, except where models are reloaded.

    Args:
        running: Running plan; None if there is none.
        plan: Plan to change to.
        reloads: MIG instances whose models have new content.
        separate: Graphs that both plans cannot serve side by side.
    """
    existing = dict(_contents(running, ())) if running is not None else {}
    wanted = dict(_contents(plan, reloads))
    return Generations(existing, wanted, set(existing.values()), set(wanted.values()), frozenset(separate))


def _contents(plan: Plan, reloads: Collection[Place]) -> Iterable[tuple[tuple[Place, str, str, str], Content]]:
    for gpu in plan.gpus:
        for placed in gpu.layout:
            place = (gpu.id, placed.placement)
            for m in placed.models:
                yield (place, m.graph, m.task, m.variant), (m.graph, m.task, m.variant, place in reloads)
