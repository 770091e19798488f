"""NVML's functions with plain Python values. They have no timeout of their own: callers run them through `Calls`.

The order of calls, the two numberings of profiles and the arguments passed by reference follow NVIDIA's NVML reference
and go-nvml.
"""

import contextlib
from collections.abc import Iterator
from ctypes import byref, c_uint
from typing import Any

import pynvml

from jigsaw_triton.gpus.reported import MigMode, ReportedGpu, ReportedInstance, ReportedProfile

Handle = Any
"""Opaque handle of a GPU instance or a compute instance."""

_MOST_PLACEMENTS = 16
_MOST_INSTANCES = 16
_ABSENT = (pynvml.NVMLError_NotSupported, pynvml.NVMLError_InvalidArgument)
"""Errors that drivers return for a profile of the enumeration that the board lacks."""

_GONE = (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument)
"""Errors that drivers return for an instance that has been destroyed in the meantime."""


class Nvml:
    """The NVML library, initialised on first use.

    Each call looks up the handle of its GPU again, since the driver may have been reloaded since the last call.
    """

    def __init__(self) -> None:
        self._initialised = False
        self._profiles: dict[str, tuple[ReportedProfile, ...]] = {}
        self._compute_profiles: dict[tuple[str, int], tuple[tuple[int, int], ...]] = {}

    def driver_version(self) -> str:
        """Returns the version of the driver."""
        with self._open():
            return str(pynvml.nvmlSystemGetDriverVersion())

    def count(self) -> int:
        """Returns the number of GPUs."""
        with self._open():
            return int(pynvml.nvmlDeviceGetCount())

    def gpu(self, index: int) -> ReportedGpu:
        """Returns a GPU with its profiles and instances."""
        with self._open():
            return self._gpu(index)

    def create_gpu_instance(self, index: int, profile: int, start: int, size: int) -> Handle:
        """Creates a GPU instance at exactly this placement: `size` memory slices from `start`."""
        with self._open():
            place = pynvml.c_nvmlGpuInstancePlacement_t(start, size)
            return pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(_device(index), profile, byref(place))

    def create_compute_instance(self, instance: Handle, profile: int) -> Handle:
        """Creates a compute instance in a GPU instance."""
        with self._open():
            return pynvml.nvmlGpuInstanceCreateComputeInstance(instance, profile)

    def whole_profile(self, instance: Handle, sm: int) -> int:
        """Returns the id of the compute instance profile that uses all multiprocessors of a GPU instance.

        Args:
            instance: Handle of the GPU instance.
            sm: Streaming multiprocessors of the GPU instance.

        Raises:
            NVMLError: There is no such profile.
        """
        with self._open():
            for profile, multiprocessors in _compute_profiles(instance):
                if multiprocessors == sm:
                    return profile
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def uuid(self, compute_instance: Handle) -> str:
        """Returns the UUID of a compute instance's MIG device."""
        with self._open():
            return _uuid(compute_instance)

    def compute_instance(self, index: int, instance: int, uuid: str) -> Handle | None:
        """Returns the handle of the compute instance with this UUID in a GPU instance; None if it is gone."""
        with self._open(), contextlib.suppress(*_GONE):
            gpu_instance = pynvml.nvmlDeviceGetGpuInstanceById(_device(index), instance)
            for profile, _ in _compute_profiles(gpu_instance):
                for handle in _compute_instances(gpu_instance, profile):
                    if _uuid(handle) == uuid:
                        return handle
        return None

    def gpu_instance(self, index: int, instance: int) -> Handle:
        """Returns the handle of the GPU instance with this id."""
        with self._open():
            return pynvml.nvmlDeviceGetGpuInstanceById(_device(index), instance)

    def destroy_compute_instance(self, compute_instance: Handle) -> None:
        """Destroys a compute instance."""
        with self._open():
            pynvml.nvmlComputeInstanceDestroy(compute_instance)

    def destroy_gpu_instance(self, instance: Handle) -> None:
        """Destroys a GPU instance."""
        with self._open():
            pynvml.nvmlGpuInstanceDestroy(instance)

    def check_device(self, uuid: str) -> None:
        """Checks that a GPU or MIG device with this UUID exists.

        Raises:
            NVMLError_NotFound: There is no such device.
        """
        with self._open():
            pynvml.nvmlDeviceGetHandleByUUID(uuid)

    def processes(self, uuid: str) -> tuple[int, ...]:
        """Returns the ids of the processes on a MIG device or a GPU, ascending."""
        with self._open():
            device = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            return tuple(sorted({p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(device)}))

    def set_mig_mode(self, index: int, *, on: bool) -> None:
        """Requests that MIG be on or off. The caller has to read the result, since the change may need a reset."""
        with self._open():
            pynvml.nvmlDeviceSetMigMode(_device(index), int(on))

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        if not self._initialised:
            pynvml.nvmlInit()
            self._initialised = True
        try:
            yield
        except (pynvml.NVMLError_Uninitialized, pynvml.NVMLError_DriverNotLoaded):
            # The driver was unloaded, so the next call has to initialise the library again.
            self._initialised = False
            raise

    def _gpu(self, index: int) -> ReportedGpu:
        device = _device(index)
        uuid, name = str(pynvml.nvmlDeviceGetUUID(device)), str(pynvml.nvmlDeviceGetName(device))
        pci = _pci_device(device)
        try:
            mode = MigMode(*map(bool, pynvml.nvmlDeviceGetMigMode(device)))
        except pynvml.NVMLError_NotSupported:
            return ReportedGpu(index, uuid, name, None, pci)
        if not mode.current:
            return ReportedGpu(index, uuid, name, mode, pci)
        if uuid not in self._profiles:
            self._profiles[uuid] = tuple(_profiles(device))
        profiles = self._profiles[uuid]
        found = [i for profile in profiles for i in self._instances(uuid, device, profile)]
        return ReportedGpu(index, uuid, name, mode, pci, profiles, tuple(sorted(found, key=lambda i: i.start)))

    def _instances(self, gpu: str, device: Any, profile: ReportedProfile) -> Iterator[ReportedInstance]:
        handles = (pynvml.c_nvmlGpuInstance_t * _MOST_INSTANCES)()
        count = c_uint(_MOST_INSTANCES)
        pynvml.nvmlDeviceGetGpuInstances(device, profile.id, handles, byref(count))
        for handle in handles[: count.value]:
            # Others may destroy their instances between two calls; such instances are left out.
            with contextlib.suppress(*_GONE):
                yield self._instance(gpu, handle, profile)

    def _instance(self, gpu: str, handle: Handle, profile: ReportedProfile) -> ReportedInstance:
        info = pynvml.nvmlGpuInstanceGetInfo(handle)
        if (gpu, profile.id) not in self._compute_profiles:
            self._compute_profiles[gpu, profile.id] = tuple(_compute_profiles(handle))
        parts, whole = self._compute_instances(handle, self._compute_profiles[gpu, profile.id], profile.sm)
        return ReportedInstance(info.id, info.profileId, info.placement.start, parts, whole)

    def _compute_instances(
        self, instance: Handle, profiles: tuple[tuple[int, int], ...], sm: int
    ) -> tuple[tuple[str, ...], str]:
        """Returns the UUIDs of all compute instances, and the UUID of the one that has all multiprocessors."""
        uuids: list[str] = []
        # The largest profile comes first: an instance that has all multiprocessors is the only one.
        for profile, multiprocessors in sorted(profiles, key=lambda p: -p[1]):
            for handle in _compute_instances(instance, profile):
                try:
                    uuid = _uuid(handle)
                except _GONE:
                    continue
                if multiprocessors == sm:
                    return (uuid,), uuid
                uuids.append(uuid)
        return tuple(uuids), ""


def _uuid(compute_instance: Handle) -> str:
    return str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlComputeInstanceGetInfo(compute_instance).device))


def _device(index: int) -> Any:
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def _pci_device(device: Any) -> str:
    try:
        return f"0x{pynvml.nvmlDeviceGetPciInfo(device).pciDeviceId:08X}"
    except pynvml.NVMLError:
        return ""


def _profiles(device: Any) -> Iterator[ReportedProfile]:
    for number in range(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        try:
            info = pynvml.nvmlDeviceGetGpuInstanceProfileInfo(device, number)
        except _ABSENT:
            continue
        places = (pynvml.c_nvmlGpuInstancePlacement_t * _MOST_PLACEMENTS)()
        count = c_uint(_MOST_PLACEMENTS)
        pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(device, info.id, places, byref(count))
        if count.value == 0:
            continue
        yield ReportedProfile(
            nvml_enum=number,
            id=info.id,
            compute_slices=info.sliceCount,
            memory_slices=places[0].size,
            sm=info.multiprocessorCount,
            memory_mib=info.memorySizeMB,
            max_instances=info.instanceCount,
            starts=tuple(sorted(place.start for place in places[: count.value])),
            media_engines=info.decoderCount + info.jpegCount + info.ofaCount,
            name=info.name.removeprefix("MIG "),
        )


def _compute_profiles(instance: Handle) -> Iterator[tuple[int, int]]:
    """Yields the id and the multiprocessors of each compute instance profile of a GPU instance."""
    shared = pynvml.NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED
    for number in range(pynvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
        try:
            info = pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, number, shared)
        except _ABSENT:
            continue
        yield info.id, info.multiprocessorCount


def _compute_instances(instance: Handle, profile: int) -> list[Handle]:
    handles = (pynvml.c_nvmlComputeInstance_t * _MOST_INSTANCES)()
    count = c_uint(_MOST_INSTANCES)
    pynvml.nvmlGpuInstanceGetComputeInstances(instance, profile, handles, byref(count))
    return list(handles[: count.value])
