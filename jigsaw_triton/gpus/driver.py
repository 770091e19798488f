"""What a MIG driver does, and which one a cluster has.

`emulated` keeps MIG's rules in a file; `nvml` will speak to the silicon.
"""

from pathlib import Path
from typing import Protocol

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.emulated import EmulatedMigDriver
from jigsaw_triton.gpus.model import Cluster, GpuId, MigInstance, Placement

STATE_FILE = "mig.json"
"""Of the emulated driver, in the state directory."""


class MigDriver(Protocol):
    """Creates and destroys MIG instances. Calls block; run them in a thread from asyncio code."""

    def instances(self) -> tuple[MigInstance, ...]:
        """All MIG instances that there are, whoever made them, sorted by GPU and start."""
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


def require_driver(cluster: Cluster) -> None:
    """Sees to it that this release has the driver that a cluster asks for.

    Raises:
        InputError: It has not.
    """
    if cluster.driver == "nvml":
        raise InputError(
            "MIG on real GPUs (driver: nvml) is not in this release",
            where="driver",
            hint="write `driver: emulated` in cluster.yaml, or say --driver emulated: MIG's rules hold then, and the "
            "models run on the processor",
        )


def open_driver(cluster: Cluster, state_dir: Path) -> MigDriver:
    """The driver that the cluster asks for.

    Args:
        cluster: Its GPUs and the name of its driver.
        state_dir: Where the emulated driver keeps its state.

    Raises:
        InputError: This release has no such driver.
    """
    require_driver(cluster)
    return EmulatedMigDriver(state_dir / STATE_FILE, cluster.gpus)
