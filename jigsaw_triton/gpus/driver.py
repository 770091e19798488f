"""What a MIG driver does, and which one a cluster has: `emulated` keeps MIG's rules in a file, `nvml` has real GPUs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.gpus.emulated import EmulatedMigDriver
from jigsaw_triton.gpus.model import Cluster, DeviceUse, GpuId, MigInstance, Placement, Reached
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from jigsaw_triton.gpus.nvml_calls import Calls, Record
from jigsaw_triton.gpus.owners import running_owners
from jigsaw_triton.spec.load import DEFAULT_NODE

STATE_FILE = "mig.json"
"""Of the emulated driver, in the state directory."""


class MigDriver(Protocol):
    """Creates and destroys MIG instances. Calls block; run them in a thread from asyncio code."""

    def instances(self) -> tuple[MigInstance, ...]:
        """All MIG instances that there are, whoever made them, also half-made ones, sorted by GPU and start.

        Raises:
            MigError: They cannot be read.
        """
        ...

    def survey(self, cluster: Cluster) -> Cluster:
        """A cluster with its GPUs as they are found: their profiles, and whether they can be cut at all.

        Raises:
            MigError: They cannot be read.
        """
        ...

    def use(self, uuids: Iterable[str]) -> Mapping[str, DeviceUse]:
        """How busy instances are, by UUID; without those of which that cannot be told. Never raises."""
        ...

    def holders(self, uuid: str) -> tuple[int, ...]:
        """Ids of the processes on an instance, ascending; none where the driver may not tell.

        Raises:
            MigTimeoutError: It does not answer.
        """
        ...

    def create(self, gpu: GpuId, placement: Placement, reached: Reached = ...) -> MigInstance:
        """Creates an instance exactly there; its UUID is new.

        Args:
            gpu: Where.
            placement: On it.
            reached: Told how far it gets. What it raises ends the creation, with nothing left.

        Raises:
            PlacementError: It overlaps another, exceeds the profile's maximum, or the GPU has no such placement.
                Nothing was made.
            InstanceInUseError: Something holds what has to change; a later attempt may succeed.
            MigError: Anything else; something may have been left half made.
        """
        ...

    def destroy(self, uuid: str) -> None:
        """Destroys an instance, also one that is half made. What fails may leave a whole one half made.

        Raises:
            InstanceNotFoundError: There is none of this UUID.
            InstanceInUseError: A process holds it.
            MigError: Anything else.
        """
        ...


def open_driver(
    cluster: Cluster, state_dir: Path, record: Record | None = None, *, node: str = DEFAULT_NODE
) -> MigDriver:
    """The driver that the cluster asks for.

    Args:
        cluster: Its GPUs and the name of its driver.
        state_dir: Where the emulated driver keeps its state.
        record: Where changes of real GPUs are told, before and after.
        node: This machine's name in GPU ids, where the cluster has no GPUs that say it.

    Raises:
        InputError: The driver does not have these GPUs.
        StateError: Another tool owns MIG on this machine. Not where there are no GPUs to make instances on.
        MigError: There is no driver, it does not answer, or this user may not ask.
    """
    if cluster.driver == "emulated":
        return EmulatedMigDriver(state_dir / STATE_FILE, cluster.gpus)
    nodes = sorted({gpu.id.node for gpu in cluster.gpus})
    if len(nodes) > 1:
        raise InputError(
            f"the driver nvml reaches the GPUs of one node, not of {len(nodes)} ({', '.join(nodes)})",
            where="driver",
            hint="keep the node that this machine is",
        )
    boards = {gpu.id.index: gpu.board for gpu in cluster.gpus}
    driver = NvmlMigDriver(nodes[0] if nodes else node, boards, calls=Calls(record=record))
    driver.check()
    if boards:
        require_ownership()
    return driver


def require_ownership() -> None:
    """Sees to it that no other tool changes MIG on this machine: each would undo what the other makes.

    Raises:
        StateError: One does.
    """
    if owners := running_owners():
        raise StateError(
            f"{' and '.join(owners)} changes MIG on this machine, too",
            hint="let only one do it: take the machine out of the other's hands, or use --driver emulated",
        )
