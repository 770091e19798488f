"""The MIG driver of real GPUs: creates, reads back and destroys instances through NVML.

It touches no instance but the one that it is told, and the MIG mode only in `enable`. What is half made, a GPU instance
without a compute instance, is reported under a name of its own, so that whoever it belongs to can have it destroyed.
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
from jigsaw_triton.gpus.model import Board, CreationStage, GpuId, MigInstance, Placement, Reached
from jigsaw_triton.gpus.nvml_errors import explained
from jigsaw_triton.gpus.nvml_gpus import NvmlGpus
from jigsaw_triton.gpus.nvml_library import Handle
from jigsaw_triton.gpus.reported import MigMode, ReportedGpu, ReportedInstance, as_reported

_GONE = (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument)
"""What drivers answer for what has been destroyed meanwhile."""


class NvmlMigDriver(NvmlGpus):
    """MIG by NVML: creates on the GPUs of `boards`, destroys on all."""

    def create(self, gpu: GpuId, placement: Placement, reached: Reached = lambda _: None) -> MigInstance:
        """Creates an instance exactly there and reads it back; its UUID is new.

        A GPU without MIG is one instance that is always there: nothing is created, and its UUID is the GPU's.

        Args:
            gpu: Where.
            placement: On it.
            reached: Told how far it gets.

        Raises:
            PlacementError: It overlaps another, exceeds the profile's maximum, or there is no such GPU or placement.
            InstanceInUseError: The driver says that something holds the GPU.
            MigTimeoutError: A call did not return. What it made, or still makes, is there afterwards.
            MigError: Anything else; what was half made is removed where the driver let it.
        """
        board = self._boards.get(gpu.index) if gpu.node == self._node else None
        if board is None:
            known = ", ".join(str(GpuId(self._node, index)) for index in sorted(self._boards))
            raise PlacementError("there is no such GPU", where=str(gpu), hint=f"the cluster has {known}")
        with self._explained(str(gpu)):
            there = self._read(gpu)
            if not there.cut:
                return self._whole(gpu, there, board, placement)
            self._check_room(gpu, there, board, placement)
            reached(CreationStage.PART)
            instance = self._create_gpu_instance(gpu, there, board, placement)
            return self._completed(gpu, there, placement, instance, reached)

    def destroy(self, uuid: str) -> None:
        """Destroys an instance, whole or half made: compute instances, then the GPU instance; reads back.

        What fails in between is left half made, under the name that `instances` has for it then.

        Args:
            uuid: Of the instance, or the name under which `instances` has a half-made one.

        Raises:
            InstanceNotFoundError: There is none of this UUID.
            InstanceInUseError: Something holds it; the message names the processes where the driver does.
            MigTimeoutError: A call did not return.
            MigError: Anything else.
        """
        with self._explained(uuid):
            gpus = self.gpus()
            if any(gpu.uuid == uuid for gpu in gpus):
                # A GPU without MIG, where nothing was created.
                return
            found = next(((g, i) for g in gpus for i in g.instances if g.named(i) == uuid), None)
            if found is None:
                self._check_gone(uuid)
                raise InstanceNotFoundError("there is no MIG instance of this UUID", where=uuid)
            self._destroy_parts(*found)
            self._destroy_gpu_instance(*found)

    def enable(self, index: int) -> MigMode:
        """Asks for MIG to be on on one GPU, on which nothing may run; what has come of it.

        Raises:
            InputError: There is no such GPU, or it knows no MIG.
            InstanceInUseError: A process is on it.
            MigError: The driver refused.
        """
        gpu = next((gpu for gpu in self.gpus() if gpu.index == index), None)
        where = str(GpuId(self._node, index))
        if gpu is None:
            hint = "list what is there with `jigsaw-triton mig list`"
            raise InputError("there is no such GPU", where=where, hint=hint)
        if gpu.mode is None:
            raise InputError(f"an {gpu.name} knows no MIG", where=where, hint="it is used as one whole slice")
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

    def _check_room(self, gpu: GpuId, there: ReportedGpu, board: Board, placement: Placement) -> None:
        """Refuses what the rule refuses, with its reason: the driver's own refusals tell none.

        Raises:
            PlacementError: It is not possible.
        """
        reason = fits(as_reported(board, there), [*(there.placement(i) for i in there.instances), placement])
        if reason is not None:
            raise PlacementError(f"no instance {placement} can be created: {reason}", where=str(gpu))

    def _create_gpu_instance(self, gpu: GpuId, there: ReportedGpu, board: Board, placement: Placement) -> Handle:
        profile = there.kinds()[placement.slice]
        try:
            return self._calls.change(
                nvml_texts.create_gpu_instance(gpu.index, profile, placement.start),
                lambda: self._nvml.create_gpu_instance(gpu.index, profile.id, placement.start, profile.memory_slices),
            )
        except pynvml.NVMLError_InsufficientResources as error:
            now = self._read(gpu)
            self._check_room(gpu, now, board, placement)
            lies = ", ".join(str(now.placement(i)) for i in now.instances) or "nothing"
            raise PlacementError(
                f"no instance {placement} can be created: the driver has no room for it, though only {lies} is there",
                where=str(gpu),
                hint="another tool may have changed the GPU at the same time; try again",
            ) from error

    def _completed(
        self, gpu: GpuId, there: ReportedGpu, placement: Placement, instance: Handle, reached: Reached
    ) -> MigInstance:
        """Gives a GPU instance its compute instance and reads both back; removes it where that fails.

        Raises:
            MigError: It failed; never a PlacementError, which says that nothing was made.
        """
        part: Handle = None
        try:
            profile = there.kinds()[placement.slice]
            number = self._calls.read(str(gpu), lambda: self._nvml.whole_profile(instance, profile.sm))
            reached(CreationStage.WHOLE)
            part = self._calls.change(
                nvml_texts.create_compute_instance(gpu.index, placement, profile.sm),
                lambda: self._nvml.create_compute_instance(instance, number),
            )
            made = MigInstance(gpu, placement, self._calls.read(str(gpu), lambda: self._nvml.uuid(part)))
            self._read_back(made)
        except MigTimeoutError:
            # Whoever asks a driver that hangs for more makes it worse.
            raise
        except BaseException as error:
            self._undo(gpu, placement, instance, part)
            if isinstance(error, pynvml.NVMLError):
                raise _half_made(error, gpu, placement) from error
            raise
        return made

    def _read_back(self, made: MigInstance) -> None:
        """Sees to it that what was made is there, where it should be.

        Raises:
            MigError: It is not.
        """
        there = self._read(made.gpu)
        if made not in [self._instance(there, instance) for instance in there.instances]:
            raise MigError(
                f"the driver has created {made.placement}, but does not report it",
                where=str(made.gpu),
                hint="another tool may have changed the GPU at the same time",
            )

    def _undo(self, gpu: GpuId, placement: Placement, instance: Handle, part: Handle) -> None:
        """Removes what was half made. What cannot be is seen in `instances`, and is for its owner to have destroyed."""
        with suppress(MigError, pynvml.NVMLError):
            if part is not None:
                what = nvml_texts.destroy_compute_instance(gpu.index, placement)
                self._calls.change(what, lambda: self._nvml.destroy_compute_instance(part))
            what = nvml_texts.destroy_gpu_instance(gpu.index, placement)
            self._calls.change(what, lambda: self._nvml.destroy_gpu_instance(instance))

    def _whole(self, gpu: GpuId, there: ReportedGpu, board: Board, placement: Placement) -> MigInstance:
        whole = board.whole
        if placement != whole:
            why = "is off" if there.mode is not None else "is not known to this GPU"
            raise PlacementError(
                f"no instance {placement} can be created: MIG {why}, and it is one whole {whole}",
                where=str(gpu),
                hint=f"`jigsaw-triton mig enable {gpu.index}`" if there.mode is not None else "plan with 7g there",
            )
        self._check_free(there.uuid, str(gpu))
        return MigInstance(gpu, placement, there.uuid)

    # --- destroying ------------------------------------------------------------------------------------------------

    def _check_gone(self, uuid: str) -> None:
        """Sees to it that an instance that no list has is not there: lists are not read in one piece.

        Raises:
            MigError: It is there all the same.
        """
        try:
            self._calls.read(uuid, lambda: self._nvml.check_device(uuid))
        except _GONE:
            return
        raise MigError("the driver knows this instance but does not list it", where=uuid, hint="try again")

    def _destroy_parts(self, gpu: ReportedGpu, instance: ReportedInstance) -> None:
        placement = gpu.placement(instance)
        for uuid in instance.parts:
            part = self._calls.read(uuid, partial(self._nvml.compute_instance, gpu.index, instance.id, uuid))
            if part is None:
                continue
            try:
                self._calls.change(
                    nvml_texts.destroy_compute_instance(gpu.index, placement),
                    partial(self._nvml.destroy_compute_instance, part),
                )
            except pynvml.NVMLError_InUse as error:
                self._check_free(uuid, f"{placement} of {GpuId(self._node, gpu.index)}")
                raise self._held_by_nobody(gpu, placement, uuid) from error
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
            raise self._held_by_nobody(gpu, placement, name) from error
        except _GONE:
            names = {name, number}
        else:
            # The number may be that of what another process makes by now; a UUID is never given again.
            names = {name} - {number}
        there = self._read(GpuId(self._node, gpu.index))
        if any(there.named(i) in names for i in there.instances):
            raise MigError(f"the driver has destroyed {placement}, but still reports it", where=name, hint="try again")

    def _held_by_nobody(self, gpu: ReportedGpu, placement: Placement, name: str) -> InstanceInUseError:
        return InstanceInUseError(
            f"{placement} of {GpuId(self._node, gpu.index)} is in use by something that the driver does not name",
            where=name,
            hint="a monitoring agent such as DCGM may hold it for a moment; try again, or stop it",
        )


def _half_made(error: pynvml.NVMLError, gpu: GpuId, placement: Placement) -> MigError:
    told = explained(error.value, where=str(gpu))
    kind = InstanceInUseError if isinstance(told, InstanceInUseError) else MigError
    return kind(f"{placement} could be created in part only: {told.message}", where=str(gpu), hint=told.hint)
