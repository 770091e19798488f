"""Reads the GPUs of this machine through NVML, without changing anything."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace

import pynvml

from jigsaw_triton.errors import GpuLostError, InputError, InstanceInUseError
from jigsaw_triton.gpus.holders import process_name
from jigsaw_triton.gpus.model import Board, Cluster, DeviceUse, GpuId, MigInstance
from jigsaw_triton.gpus.nvml_calls import Calls
from jigsaw_triton.gpus.nvml_errors import explained
from jigsaw_triton.gpus.nvml_library import Nvml
from jigsaw_triton.gpus.nvml_use import UseReader
from jigsaw_triton.gpus.reported import ReportedGpu, ReportedInstance, mismatch, surveyed


class NvmlGpus:
    """Reads the state of GPUs. Several threads can use it, concurrently with other processes.

    Args:
        node: Name of this machine in GPU ids, whose indexes are NVML's.
        boards: Expected boards by GPU index. Other GPUs are reported, too.
        calls: Maker of the calls.
        nvml: NVML library.
    """

    def __init__(
        self, node: str, boards: Mapping[int, Board], *, calls: Calls | None = None, nvml: Nvml | None = None
    ) -> None:
        self._node = node
        self._boards = dict(boards)
        self._calls = calls or Calls()
        self._nvml = nvml or Nvml()
        self._use = UseReader()

    def version(self) -> str:
        """Returns the version of NVIDIA's driver.

        Raises:
            MigError: There is no driver, or it does not answer.
        """
        with self._explained("NVIDIA driver"):
            return self._calls.read("reading the driver's version", self._nvml.driver_version)

    def gpus(self) -> tuple[ReportedGpu, ...]:
        """Returns all GPUs as the driver reports them.

        Raises:
            GpuLostError: A GPU is lost, which the message names.
            MigError: There is no driver, it does not answer, or this user lacks the rights.
        """
        return tuple(self._reported(GpuId(self._node, index)) for index in range(self._count()))

    def _present(self) -> tuple[tuple[ReportedGpu, ...], frozenset[int]]:
        """Returns the GPUs that are not lost, and the indexes of those that are.

        Raises:
            MigError: There is no driver, it does not answer, or this user lacks the rights.
        """
        indexes = range(self._count())
        present: list[ReportedGpu] = []
        for index in indexes:
            with suppress(GpuLostError):
                present.append(self._reported(GpuId(self._node, index)))
        return tuple(present), frozenset(indexes) - {gpu.index for gpu in present}

    def _count(self) -> int:
        with self._explained("NVIDIA driver"):
            return self._calls.read("counting the GPUs", self._nvml.count)

    def check(self) -> None:
        """Checks that the expected GPUs exist and have the expected boards, as far as they are not lost.

        Raises:
            InputError: A GPU is missing or has another board.
            MigError: See `_present`.
        """
        present, lost = self._present()
        gpus = {gpu.index: gpu for gpu in present}
        for index, board in sorted(self._boards.items()):
            if index in lost:
                continue
            where = str(GpuId(self._node, index))
            if index not in gpus:
                hint = "list the GPUs with `jigsaw-triton mig list`"
                raise InputError(f"there is no such GPU; the driver has {len(gpus)}", where=where, hint=hint)
            if reason := mismatch(board, gpus[index]):
                hint = "list the GPUs of a node with their models in the order of nvidia-smi"
                raise InputError(f"this GPU is not of model {board.name}: {reason}", where=where, hint=hint)

    def survey(self, cluster: Cluster) -> Cluster:
        """Returns the cluster with its GPUs' profiles as this driver reports them, and without those that are lost.

        Raises:
            MigError: See `_present`.
        """
        present, lost = self._present()
        gone = {GpuId(self._node, index) for index in lost}
        found = surveyed(cluster, {GpuId(self._node, gpu.index): gpu for gpu in present})
        return replace(found, gpus=tuple(gpu for gpu in found.gpus if gpu.id not in gone))

    def instances(self) -> tuple[MigInstance, ...]:
        """Returns all MIG instances, including half-made ones, sorted by GPU and start. Lost GPUs have none.

        Raises:
            MigError: See `_present`.
        """
        found = [self._instance(gpu, instance) for gpu in self._present()[0] for instance in gpu.instances]
        return tuple(sorted(found, key=lambda i: (i.gpu, i.placement)))

    def holders(self, uuid: str) -> tuple[int, ...]:
        """Returns the ids of the processes on an instance or a GPU, ascending; empty if the driver does not show them.

        Raises:
            MigTimeoutError: The driver does not answer.
        """
        try:
            return self._calls.read(uuid, lambda: self._nvml.processes(uuid))
        except pynvml.NVMLError:
            return ()

    def use(self, uuids: Iterable[str]) -> Mapping[str, DeviceUse]:
        """Returns the utilisation of instances; see `UseReader.read`."""
        return self._use.read(uuids)

    def _reported(self, gpu: GpuId) -> ReportedGpu:
        with self._explained(str(gpu)):
            return self._read(gpu)

    def _read(self, gpu: GpuId) -> ReportedGpu:
        return self._calls.read(f"reading {gpu}", lambda: self._nvml.gpu(gpu.index))

    def _instance(self, gpu: ReportedGpu, instance: ReportedInstance) -> MigInstance:
        return MigInstance(GpuId(self._node, gpu.index), gpu.placement(instance), gpu.named(instance))

    def _check_free(self, uuid: str, what: str) -> None:
        """Checks that no process uses an instance or a GPU.

        Raises:
            InstanceInUseError: A process uses it; the message names all such processes.
        """
        if pids := self.holders(uuid):
            named = ", ".join(f"{pid} ({name})" if (name := process_name(pid)) else str(pid) for pid in pids)
            raise InstanceInUseError(
                f"{what} is held by process {named}", where=uuid, hint="stop the processes that use it first"
            )

    @contextmanager
    def _explained(self, where: str) -> Iterator[None]:
        try:
            yield
        except pynvml.NVMLError as error:
            raise explained(error.value, where=where) from error
