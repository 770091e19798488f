"""GPUs of this machine and owners of their MIG instances: a deployment, `mig apply`, or others."""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from jigsaw_triton.controller.fleet.instances import Instances
from jigsaw_triton.controller.fleet.ownership import ours
from jigsaw_triton.controller.persistence.call_record import CallRecord
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.lock import locked
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.errors import InputError, MigError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.driver import require_ownership
from jigsaw_triton.gpus.model import Board, GpuId, Layout, MigInstance
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from jigsaw_triton.gpus.nvml_calls import Calls
from jigsaw_triton.gpus.nvml_gpus import NvmlGpus
from jigsaw_triton.gpus.reported import ReportedGpu, described
from jigsaw_triton.spec.words import LOCAL_NODE

Owner = Literal["deployment", "mig apply", "others"]

_JOURNAL, _LOCK = "mig.sqlite", "mig.lock"
"""Journal and lock of `mig apply`, in the folder of the deployment."""


@dataclass(frozen=True, slots=True)
class FoundInstance:
    """A MIG instance.

    Attributes:
        instance: Instance as the driver reports it.
        profile: Name of its kind in the driver.
        parts: Number of its compute instances: 0 if it is incomplete, more than 1 if it is split.
        owner: Program that created it.
        processes: Ids of the processes on it that the driver reports.
    """

    instance: MigInstance
    profile: str
    parts: int
    owner: Owner
    processes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FoundGpu:
    """A GPU.

    Attributes:
        reported: GPU as the driver reports it.
        board: Slices that it can be cut into; None if they are unknown.
        instances: MIG instances, sorted by start.
    """

    reported: ReportedGpu
    board: Board | None
    instances: tuple[FoundInstance, ...]

    @property
    def id(self) -> GpuId:
        """Id of the GPU in plans."""
        return GpuId(LOCAL_NODE, self.reported.index)

    @property
    def layout(self) -> Layout:
        """Layout of all complete instances."""
        return tuple(sorted(i.instance.placement for i in self.instances if not i.instance.half_made))


class MigMachine:
    """This machine, for inspecting MIG and for changing it by hand.

    Args:
        driver: MIG driver of its GPUs.
        journal: Journal of `mig apply`; None if it has created nothing.
        paths: Paths of the deployment whose instances are recognised.
    """

    def __init__(self, driver: NvmlMigDriver, journal: Journal | None, paths: Paths) -> None:
        self.driver = driver
        self._journal = journal
        self._paths = paths

    @property
    def instances(self) -> Instances:
        """Creates and destroys the instances of `mig apply`."""
        if self._journal is None:
            raise RuntimeError("the machine was opened without changes=True")
        return Instances(self._journal, self.driver)

    def gpus(self) -> tuple[FoundGpu, ...]:
        """Returns the GPUs and their MIG instances as they are now.

        Raises:
            MigError: There is no driver, it does not answer, or this user may not query it.
        """
        reported = self.driver.gpus()
        everything = tuple(
            MigInstance(GpuId(LOCAL_NODE, gpu.index), gpu.placement(i), gpu.named(i))
            for gpu in reported
            for i in gpu.instances
        )
        mine = {i.uuid for i in ours(everything, self._journal)} if self._journal is not None else set()
        deployed = self._deployed(everything)

        def owner(uuid: str) -> Owner:
            return "mig apply" if uuid in mine else "deployment" if uuid in deployed else "others"

        def found(gpu: ReportedGpu, instance: MigInstance) -> FoundInstance:
            reported = next(i for i in gpu.instances if gpu.named(i) == instance.uuid)
            name = next(p.name for p in gpu.profiles if p.id == reported.profile)
            processes = sorted({pid for part in reported.parts for pid in self.driver.holders(part)})
            return FoundInstance(instance, name, len(reported.parts), owner(instance.uuid), tuple(processes))

        return tuple(
            FoundGpu(
                gpu,
                described(gpu, CATALOG.values()),
                tuple(found(gpu, i) for i in everything if i.gpu.index == gpu.index),
            )
            for gpu in reported
        )

    @contextmanager
    def adopted(self, instances: Iterable[MigInstance]) -> Iterator[None]:
        """Records instances as owned by `mig apply` while they are destroyed.

        If a crash leaves one incomplete, the next call finishes its destruction. Instances of others that still exist
        at the end belong to others again.
        """
        assert self._journal is not None
        own = {instance.uuid for instance in self._journal.instances()}
        others = [instance for instance in instances if instance.uuid not in own]
        for instance in others:
            self._journal.keep_instance(instance)
        try:
            yield
        finally:
            with suppress(MigError):
                existing = {instance.uuid for instance in self.driver.instances()}
                for instance in others:
                    if instance.uuid in existing:
                        self._journal.forget_instance(instance.uuid)

    def _deployed(self, instances: tuple[MigInstance, ...]) -> set[str]:
        if not self._paths.journal.exists():
            return set()
        with closing(JournalReader(self._paths.journal)) as journal:
            return {i.uuid for i in ours(instances, journal)}


@contextmanager
def mig_machine(paths: Paths, *, changes: bool = False) -> Iterator[MigMachine]:
    """Opens this machine. Without `changes` it writes no file.

    Args:
        paths: Paths of a deployment.
        changes: True to create and destroy MIG instances.

    Raises:
        InputError: The state folder cannot be written.
        StateError: `changes` is True, and another program owns MIG on this machine.
        MigError: There is no driver, it does not answer, or this user may not query it.
    """
    gpus = NvmlGpus(LOCAL_NODE, {}).gpus()
    boards = {gpu.index: board for gpu in gpus if (board := described(gpu, CATALOG.values())) is not None}
    file = paths.state / _JOURNAL
    if not changes and not file.exists():
        yield MigMachine(NvmlMigDriver(LOCAL_NODE, boards), None, paths)
        return
    if changes:
        require_ownership()
    try:
        paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        hint = "choose another with --state or JIGSAW_STATE"
        message = f"the folder cannot be created ({error.strerror})"
        raise InputError(message, where=str(paths.state), hint=hint) from error
    # Without the lock, an instance that another process is creating would look like one that a dead process left.
    with locked(paths.state / _LOCK), closing(Journal(file)) as journal:
        driver = NvmlMigDriver(LOCAL_NODE, boards, calls=Calls(record=CallRecord(journal)))
        yield MigMachine(driver, journal, paths)
