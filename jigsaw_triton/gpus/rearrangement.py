"""Computes the instances to keep, destroy and create so that a GPU gets a new layout."""

from collections.abc import Iterable
from dataclasses import dataclass

from jigsaw_triton.gpus.model import GpuId, Layout, MigInstance, Placement


@dataclass(frozen=True, slots=True)
class Rearrangement:
    """Changes that give a GPU a new layout. Instances that stay keep running.

    Attributes:
        gpu: GPU to change.
        stay: Instances that the new layout contains.
        destroy: Instances that the new layout does not contain. They are destroyed first, since they may overlap.
        create: Placements of the new layout that have no instance yet.
    """

    gpu: GpuId
    stay: tuple[MigInstance, ...]
    destroy: tuple[MigInstance, ...]
    create: tuple[Placement, ...]

    @property
    def empty(self) -> bool:
        """True if the GPU already has the layout."""
        return not self.destroy and not self.create


def rearrangement(gpu: GpuId, present: Iterable[MigInstance], wanted: Layout) -> Rearrangement:
    """Returns the fewest changes that lead to a layout, comparing slice kind and start.

    Args:
        gpu: GPU to change.
        present: Instances on the GPU that may be destroyed; half-made ones always are.
        wanted: New layout of the GPU.
    """
    instances = sorted(present, key=lambda i: i.placement)
    stay = tuple(i for i in instances if i.placement in wanted and not i.half_made)
    kept = {i.placement for i in stay}
    return Rearrangement(
        gpu,
        stay,
        tuple(i for i in instances if i not in stay),
        tuple(placement for placement in sorted(wanted) if placement not in kept),
    )
