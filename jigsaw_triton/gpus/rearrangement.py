"""From the layout that a GPU has to another one: what stays, what goes, what comes."""

from collections.abc import Iterable
from dataclasses import dataclass

from jigsaw_triton.gpus.model import GpuId, Layout, MigInstance, Placement


@dataclass(frozen=True, slots=True)
class Rearrangement:
    """The changes of one GPU. What stays keeps running meanwhile.

    Attributes:
        gpu: Which.
        stay: Instances that are where the new layout wants them.
        destroy: Instances that are not; first of all, since they may be in the way.
        create: What is missing.
    """

    gpu: GpuId
    stay: tuple[MigInstance, ...]
    destroy: tuple[MigInstance, ...]
    create: tuple[Placement, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing has to change."""
        return not self.destroy and not self.create


def rearrangement(gpu: GpuId, present: Iterable[MigInstance], wanted: Layout) -> Rearrangement:
    """The fewest changes to a layout, by slice kind and start.

    Args:
        gpu: Which.
        present: Instances on it that may go; half-made ones do.
        wanted: The layout that they are to have.
    """
    here = sorted(present, key=lambda i: i.placement)
    stay = tuple(i for i in here if i.placement in wanted and not i.half_made)
    kept = {i.placement for i in stay}
    return Rearrangement(
        gpu,
        stay,
        tuple(i for i in here if i not in stay),
        tuple(placement for placement in sorted(wanted) if placement not in kept),
    )
