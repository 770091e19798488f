"""The interface of MIG drivers, and the choice between them: `emulated` keeps its state in a file, `nvml` uses GPUs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.gpus.emulated import EmulatedMigDriver
from jigsaw_triton.gpus.model import Cluster, DeviceUse, GpuId, MigInstance, Placement, StageCallback
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from jigsaw_triton.gpus.nvml_calls import Calls, Record
from jigsaw_triton.gpus.owners import running_owners
from jigsaw_triton.spec.words import LOCAL_NODE

STATE_FILE = "mig.json"
"""Name of the emulated driver's state file in the state directory."""


class MigDriver(Protocol):
    """Creates and destroys MIG instances. Calls block; run them in a thread from asyncio code."""

    def instances(self) -> tuple[MigInstance, ...]:
        """Returns all MIG instances, of any owner and including half-made ones, sorted by GPU and start.

        Raises:
            MigError: The instances cannot be read.
        """
        ...

    def survey(self, cluster: Cluster) -> Cluster:
        """Returns the cluster with its GPUs' actual profiles, and marks the GPUs that cannot be partitioned.

        GPUs that are lost are left out.

        Raises:
            MigError: The GPUs cannot be read.
        """
        ...

    def use(self, uuids: Iterable[str]) -> Mapping[str, DeviceUse]:
        """Returns the utilisation of instances by UUID, without those for which it is unknown. Never raises."""
        ...

    def holders(self, uuid: str) -> tuple[int, ...]:
        """Returns the ids of the processes on an instance, ascending; empty if this user may not see them.

        Raises:
            MigTimeoutError: The driver does not answer.
        """
        ...

    def create(self, gpu: GpuId, placement: Placement, on_stage: StageCallback = ...) -> MigInstance:
        """Creates an instance at exactly this placement, with a new UUID.

        Args:
            gpu: GPU to create the instance on.
            placement: Placement on that GPU.
            on_stage: Callback for the stages of the creation. An exception from it aborts the creation, which then
                leaves nothing behind.

        Raises:
            PlacementError: The instance would overlap another or exceed the profile's maximum, or the GPU has no such
                placement. Nothing was created.
            InstanceInUseError: A process holds a resource that has to change; a retry may succeed.
            MigError: The creation failed for another reason and may have left a half-made instance.
        """
        ...

    def destroy(self, uuid: str) -> None:
        """Destroys an instance, complete or half-made. A failure may leave a complete instance half-made.

        Raises:
            InstanceNotFoundError: There is no instance with this UUID.
            InstanceInUseError: A process holds the instance.
            MigError: The destruction failed for another reason.
        """
        ...


def open_driver(
    cluster: Cluster, state_dir: Path, record: Record | None = None, *, node: str = LOCAL_NODE
) -> MigDriver:
    """Opens the driver that the cluster names.

    Args:
        cluster: Cluster with the GPUs and the name of the driver.
        state_dir: Folder for the state of the emulated driver.
        record: Recorder of changes to real GPUs, called before and after each change.
        node: This machine's name in GPU ids, used if the cluster has no GPUs.

    Raises:
        InputError: The machine does not have these GPUs.
        StateError: Another tool manages MIG on this machine. Not raised for a cluster without GPUs.
        MigError: There is no driver, it does not answer, or this user lacks the rights.
    """
    if cluster.driver == "emulated":
        return EmulatedMigDriver(state_dir / STATE_FILE, cluster.gpus)
    nodes = sorted({gpu.id.node for gpu in cluster.gpus})
    if len(nodes) > 1:
        raise InputError(
            f"the nvml driver manages the GPUs of one node, but the cluster has {len(nodes)} ({', '.join(nodes)})",
            where="driver",
            hint="keep only the node of this machine",
        )
    boards = {gpu.id.index: gpu.board for gpu in cluster.gpus}
    driver = NvmlMigDriver(nodes[0] if nodes else node, boards, calls=Calls(record=record))
    driver.check()
    if boards:
        require_ownership()
    return driver


def require_ownership() -> None:
    """Checks that no other tool manages MIG on this machine, since two would undo each other's changes.

    Raises:
        StateError: Another tool manages MIG.
    """
    if owners := running_owners():
        raise StateError(
            f"{' and '.join(owners)} also changes MIG on this machine",
            hint="let only one tool manage MIG: exclude this machine from the other tool, or use --driver emulated",
        )
