"""The MIG driver for real GPUs, which creates, reads back and destroys instances through NVML.

Each call changes only the instance that it is given, and only `enable` changes the MIG mode. A half-made instance is a
GPU instance without its compute instance; it is reported under a name of its own, so that its owner can destroy it.
"""

from contextlib import suppress
from functools import partial

import pynvml

from jigsaw_triton.errors import (
    InputError,
    InstanceInUseError,
    InstanceNotFoundError,
    MigError,
    MigTimeoutError,
    PlacementError,
)
from jigsaw_triton.gpus import nvml_texts
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import Board, CreationStage, GpuId, MigInstance, Placement, StageCallback
from jigsaw_triton.gpus.nvml_errors import explained
from jigsaw_triton.gpus.nvml_gpus import NvmlGpus
from jigsaw_triton.gpus.nvml_library import Handle
from jigsaw_triton.gpus.reported import MigMode, ReportedGpu, ReportedInstance, as_reported

_GONE = (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument)
"""Errors that drivers return for an instance that has been destroyed in the meantime."""


class NvmlMigDriver(NvmlGpus):
    """MIG driver that uses NVML. It creates instances on the GPUs of `boards` and destroys instances on all GPUs."""

    def create(self, gpu: GpuId, placement: Placement, on_stage: StageCallback = lambda _: None) -> MigInstance:
        """Creates an instance at exactly this placement, with a new UUID, and reads it back.

        A GPU without MIG counts as one instance that always exists: nothing is created, and its UUID is the GPU's.

        Args:
            gpu: GPU to create the instance on.
            placement: Placement on that GPU.
            on_stage: Callback for the stages of the creation.

        Raises:
            PlacementError: The instance would overlap another or exceed the profile's maximum, or there is no such GPU
                or placement.
            InstanceInUseError: The driver reports that the GPU is in use.
            MigTimeoutError: A call did not return. It may have taken effect, or still take effect later.
            MigError: The creation failed for another reason. A half-made instance is removed if the driver allows it.
        """
        board = self._boards.get(gpu.index) if gpu.node == self._node else None
        if board is None:
            known = ", ".join(str(GpuId(self._node, index)) for index in sorted(self._boards))
            raise PlacementError("there is no such GPU", where=str(gpu), hint=f"the cluster has {known}")
        with self._explained(str(gpu)):
            reported = self._read(gpu)
            if not reported.cut:
                return self._whole(gpu, reported, board, placement)
            self._check_room(gpu, reported, board, placement)
            on_stage(CreationStage.PART)
            instance = self._create_gpu_instance(gpu, reported, board, placement)
            return self._complete(gpu, reported, placement, instance, on_stage)

    def destroy(self, uuid: str) -> None:
        """Destroys the compute instances and then the GPU instance, and checks that the instance is gone.

        A failure between these calls leaves a half-made instance, which `instances` reports under a new name.

        Args:
            uuid: UUID of a complete instance, or the name of a half-made one as `instances` reports it.

        Raises:
            InstanceNotFoundError: There is no instance with this UUID.
            InstanceInUseError: The instance is in use. The message names the processes if the driver does.
            MigTimeoutError: A call did not return.
            MigError: The destruction failed for another reason.
        """
        with self._explained(uuid):
            gpus, _ = self._present()
            if any(gpu.uuid == uuid for gpu in gpus):
                # A GPU without MIG: nothing was created, so there is nothing to destroy.
                return
            found = next(((g, i) for g in gpus for i in g.instances if g.named(i) == uuid), None)
            if found is None:
                self._check_gone(uuid)
                raise InstanceNotFoundError("there is no MIG instance with this UUID", where=uuid)
            self._destroy_compute_instances(*found)
            self._destroy_gpu_instance(*found)

    def enable(self, index: int) -> MigMode:
        """Enables MIG mode on an idle GPU and returns the mode that the GPU then has.

        Raises:
            InputError: There is no such GPU, or it does not support MIG.
            InstanceInUseError: A process uses the GPU.
            MigError: The driver refused.
        """
        gpu = next((gpu for gpu in self.gpus() if gpu.index == index), None)
        where = str(GpuId(self._node, index))
        if gpu is None:
            hint = "list the GPUs with `jigsaw-triton mig list`"
            raise InputError("there is no such GPU", where=where, hint=hint)
        if gpu.mode is None:
            hint = "the GPU can only be used as one whole slice"
            raise InputError(f"an {gpu.name} does not support MIG", where=where, hint=hint)
        if not gpu.mode.current:
            self._check_free(gpu.uuid, where)
            with self._explained(where):
                self._calls.change(
                    f"nvmlDeviceSetMigMode(GPU {index}, on)", lambda: self._nvml.set_mig_mode(index, on=True)
                )
        with self._explained(where):
            mode = self._read(GpuId(self._node, index)).mode
        assert mode is not None
        return mode

    # --- creating --------------------------------------------------------------------------------------------------

    def _check_room(self, gpu: GpuId, reported: ReportedGpu, board: Board, placement: Placement) -> None:
        """Checks MIG's rules before the driver does, because the driver's refusals give no reason.

        Raises:
            PlacementError: MIG's rules do not allow the placement.
        """
        present = [reported.placement(i) for i in reported.instances]
        reason = fits(as_reported(board, reported), [*present, placement])
        if reason is not None:
            raise PlacementError(f"instance {placement} cannot be created: {reason}", where=str(gpu))

    def _create_gpu_instance(self, gpu: GpuId, reported: ReportedGpu, board: Board, placement: Placement) -> Handle:
        profile = reported.kinds()[placement.slice]
        try:
            return self._calls.change(
                nvml_texts.create_gpu_instance(gpu.index, profile, placement.start),
                lambda: self._nvml.create_gpu_instance(gpu.index, profile.id, placement.start, profile.memory_slices),
            )
        except pynvml.NVMLError_InsufficientResources as error:
            now = self._read(gpu)
            self._check_room(gpu, now, board, placement)
            present = ", ".join(str(now.placement(i)) for i in now.instances) or "no instance"
            raise PlacementError(
                f"instance {placement} cannot be created: the driver has no room for it, although it reports {present}",
                where=str(gpu),
                hint="another tool may have changed the GPU at the same time; try again",
            ) from error

    def _complete(
        self, gpu: GpuId, reported: ReportedGpu, placement: Placement, instance: Handle, on_stage: StageCallback
    ) -> MigInstance:
        """Creates the compute instance of a GPU instance and reads both back; removes both if that fails.

        Raises:
            MigError: The creation failed. This is never a PlacementError, which means that nothing was created.
        """
        compute_instance: Handle = None
        try:
            profile = reported.kinds()[placement.slice]
            number = self._calls.read(str(gpu), lambda: self._nvml.whole_profile(instance, profile.sm))
            on_stage(CreationStage.WHOLE)
            compute_instance = self._calls.change(
                nvml_texts.create_compute_instance(gpu.index, placement, profile.sm),
                lambda: self._nvml.create_compute_instance(instance, number),
            )
            created = MigInstance(gpu, placement, self._calls.read(str(gpu), lambda: self._nvml.uuid(compute_instance)))
            self._check_reported(created)
        except MigTimeoutError:
            # Further calls to a driver that hangs would make it worse.
            raise
        except BaseException as error:
            self._undo(gpu, placement, instance, compute_instance)
            if isinstance(error, pynvml.NVMLError):
                raise _partly_created(error, gpu, placement) from error
            raise
        return created

    def _check_reported(self, created: MigInstance) -> None:
        """Checks that the driver reports the created instance at its placement.

        Raises:
            MigError: The driver does not report it.
        """
        reported = self._read(created.gpu)
        if created not in [self._instance(reported, instance) for instance in reported.instances]:
            raise MigError(
                f"the driver has created {created.placement}, but does not report it",
                where=str(created.gpu),
                hint="another tool may have changed the GPU at the same time",
            )

    def _undo(self, gpu: GpuId, placement: Placement, instance: Handle, compute_instance: Handle) -> None:
        """Removes an incomplete creation. If that fails, `instances` shows the rest, which its owner has to destroy."""
        with suppress(MigError, pynvml.NVMLError):
            if compute_instance is not None:
                what = nvml_texts.destroy_compute_instance(gpu.index, placement)
                self._calls.change(what, lambda: self._nvml.destroy_compute_instance(compute_instance))
            what = nvml_texts.destroy_gpu_instance(gpu.index, placement)
            self._calls.change(what, lambda: self._nvml.destroy_gpu_instance(instance))

    def _whole(self, gpu: GpuId, reported: ReportedGpu, board: Board, placement: Placement) -> MigInstance:
        whole = board.whole
        if placement != whole:
            supported = reported.mode is not None
            raise PlacementError(
                f"instance {placement} cannot be created: this GPU is one whole {whole}, because "
                + ("MIG is off" if supported else "it does not support MIG"),
                where=str(gpu),
                hint=f"`jigsaw-triton mig enable {gpu.index}`" if supported else f"plan with {whole.slice} there",
            )
        self._check_free(reported.uuid, str(gpu))
        return MigInstance(gpu, placement, reported.uuid)

    # --- destroying ------------------------------------------------------------------------------------------------

    def _check_gone(self, uuid: str) -> None:
        """Checks that an instance that was in no list does not exist, since the lists are not read atomically.

        Raises:
            MigError: The instance exists.
        """
        try:
            self._calls.read(uuid, lambda: self._nvml.check_device(uuid))
        except _GONE:
            return
        raise MigError("the driver knows this instance but does not list it", where=uuid, hint="try again")

    def _destroy_compute_instances(self, gpu: ReportedGpu, instance: ReportedInstance) -> None:
        placement = gpu.placement(instance)
        for uuid in instance.parts:
            handle = self._calls.read(uuid, partial(self._nvml.compute_instance, gpu.index, instance.id, uuid))
            if handle is None:
                continue
            try:
                self._calls.change(
                    nvml_texts.destroy_compute_instance(gpu.index, placement),
                    partial(self._nvml.destroy_compute_instance, handle),
                )
            except pynvml.NVMLError_InUse as error:
                self._check_free(uuid, f"{placement} of {GpuId(self._node, gpu.index)}")
                raise self._held_by_unknown(gpu, placement, uuid) from error
            except _GONE:
                continue

    def _destroy_gpu_instance(self, gpu: ReportedGpu, instance: ReportedInstance) -> None:
        placement, name, number = gpu.placement(instance), gpu.named(instance), f"{gpu.uuid}/{instance.id}"
        try:
            handle = self._calls.read(name, lambda: self._nvml.gpu_instance(gpu.index, instance.id))
            self._calls.change(
                nvml_texts.destroy_gpu_instance(gpu.index, placement),
                lambda: self._nvml.destroy_gpu_instance(handle),
            )
        except pynvml.NVMLError_InUse as error:
            raise self._held_by_unknown(gpu, placement, name) from error
        except _GONE:
            names = {name, number}
        else:
            # Another process may have created an instance with the same number by now; UUIDs are never reused.
            names = {name} - {number}
        reported = self._read(GpuId(self._node, gpu.index))
        if any(reported.named(i) in names for i in reported.instances):
            raise MigError(f"the driver has destroyed {placement}, but still reports it", where=name, hint="try again")

    def _held_by_unknown(self, gpu: ReportedGpu, placement: Placement, name: str) -> InstanceInUseError:
        return InstanceInUseError(
            f"{placement} of {GpuId(self._node, gpu.index)} is in use by something that the driver does not name",
            where=name,
            hint="a monitoring agent such as DCGM may hold it for a moment; try again, or stop it",
        )


def _partly_created(error: pynvml.NVMLError, gpu: GpuId, placement: Placement) -> MigError:
    cause = explained(error.value, where=str(gpu))
    kind = InstanceInUseError if isinstance(cause, InstanceInUseError) else MigError
    return kind(f"{placement} was created only partly: {cause.message}", where=str(gpu), hint=cause.hint)
