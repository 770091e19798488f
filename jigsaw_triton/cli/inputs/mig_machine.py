"""The GPUs of this machine and whose MIG instances are: a deployment's, `mig apply`'s, or others'."""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from jigsaw_triton.controller.instances import Instances
from jigsaw_triton.controller.journal import CallRecord, Journal
from jigsaw_triton.controller.lock import locked
from jigsaw_triton.controller.ownership import ours
from jigsaw_triton.controller.paths import Paths
from jigsaw_triton.errors import InputError, MigError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.driver import require_ownership
from jigsaw_triton.gpus.model import Board, GpuId, Layout, MigInstance
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from jigsaw_triton.gpus.nvml_calls import Calls
from jigsaw_triton.gpus.nvml_gpus import NvmlGpus
from jigsaw_triton.gpus.reported import ReportedGpu, described
from jigsaw_triton.spec.load import DEFAULT_NODE

Owner = Literal["deployment", "mig apply", "others"]

_JOURNAL, _LOCK = "mig.sqlite", "mig.lock"
"""Of what `mig apply` made, beside the deployment's own."""


@dataclass(frozen=True, slots=True)
class FoundInstance:
    """A MIG instance.

    Attributes:
        instance: As the driver reports it.
        profile: The driver's name for it.
        parts: How many compute instances it has: 0 where it is half made, several where it is split.
        owner: Whose it is.
        processes: Ids of those on it, as far as the driver tells.
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
        reported: As the driver reports it.
        board: What it can be cut into; None where that cannot be told.
        instances: Sorted by start.
    """

    reported: ReportedGpu
    board: Board | None
    instances: tuple[FoundInstance, ...]

    @property
    def id(self) -> GpuId:
        """In the words of plans."""
        return GpuId(DEFAULT_NODE, self.reported.index)

    @property
    def layout(self) -> Layout:
        """Of all whole instances."""
        return tuple(sorted(i.instance.placement for i in self.instances if not i.instance.half_made))


class MigMachine:
    """This machine, for looking at MIG and for changing it by hand.

    Args:
        driver: Of its GPUs.
        journal: Of what `mig apply` made; None where it has made nothing.
        paths: Of the deployment whose instances are known as such.
    """

    def __init__(self, driver: NvmlMigDriver, journal: Journal | None, paths: Paths) -> None:
        self.driver = driver
        self._journal = journal
        self._paths = paths

    @property
    def instances(self) -> Instances:
        """Creates and destroys what `mig apply` owns."""
        if self._journal is None:
            raise RuntimeError("this machine was opened for looking at it")
        return Instances(self._journal, self.driver)

    def gpus(self) -> tuple[FoundGpu, ...]:
        """What is there now.

        Raises:
            MigError: There is no driver, it does not answer, or this user may not ask.
        """
        reported = self.driver.gpus()
        everything = tuple(
            MigInstance(GpuId(DEFAULT_NODE, gpu.index), gpu.placement(i), gpu.named(i))
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
        """Makes instances `mig apply`'s own while they are destroyed, so that what is left half made is followed up.

        Others' that are still whole afterwards are others' again.
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
                there = {instance.uuid for instance in self.driver.instances()}
                for instance in others:
                    if instance.uuid in there:
                        self._journal.forget_instance(instance.uuid)

    def _deployed(self, instances: tuple[MigInstance, ...]) -> set[str]:
        if not self._paths.journal.exists():
            return set()
        with closing(Journal(self._paths.journal)) as journal:
            return {i.uuid for i in ours(instances, journal)}


@contextmanager
def mig_machine(paths: Paths, *, changes: bool = False) -> Iterator[MigMachine]:
    """This machine; looking at it writes nothing.

    Args:
        paths: Of a deployment.
        changes: Whether it is to be changed.

    Raises:
        InputError: The folder of the state cannot be written.
        StateError: It is to be changed, and another tool owns MIG on it.
        MigError: There is no driver, it does not answer, or this user may not ask.
    """
    gpus = NvmlGpus(DEFAULT_NODE, {}).gpus()
    boards = {gpu.index: board for gpu in gpus if (board := described(gpu, CATALOG.values())) is not None}
    file = paths.state / _JOURNAL
    if not changes and not file.exists():
        yield MigMachine(NvmlMigDriver(DEFAULT_NODE, boards), None, paths)
        return
    if changes:
        require_ownership()
    try:
        paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        hint = "choose another with --state or JIGSAW_STATE"
        message = f"the folder cannot be made ({error.strerror})"
        raise InputError(message, where=str(paths.state), hint=hint) from error
    # What another process is about to make would look like what a dead one has left.
    with locked(paths.state / _LOCK), closing(Journal(file)) as journal:
        driver = NvmlMigDriver(DEFAULT_NODE, boards, calls=Calls(record=CallRecord(journal)))
        yield MigMachine(driver, journal, paths)
