"""What a MIG driver does. `emulated` keeps MIG's rules in a file; `nvml` will speak to the silicon."""

from typing import Protocol

from jigsaw_triton.gpus.model import GpuId, MigInstance, Placement


class MigDriver(Protocol):
    """Creates and destroys MIG instances. Calls block; run them in a thread from asyncio code."""

    def instances(self) -> tuple[MigInstance, ...]:
        """All MIG instances of the cluster, sorted by GPU and start."""
        ...

    def create(self, gpu: GpuId, placement: Placement) -> MigInstance:
        """Creates an instance exactly there; its UUID is new.

        Raises:
            PlacementError: It overlaps another, exceeds the profile's maximum, or the GPU has no such placement.
        """
        ...

    def destroy(self, uuid: str) -> None:
        """Destroys an instance.

        Raises:
            InstanceNotFoundError: There is none of this UUID.
            InstanceInUseError: A process holds it.
        """
        ...
