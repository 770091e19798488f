"""NVML's functions, in plain values. Nothing here has a time limit: `Calls` gives it one.

The sequence, the two numberings and what is passed by reference follow NVIDIA's NVML reference and go-nvml.
"""

import contextlib
from collections.abc import Iterator
from ctypes import byref, c_uint
from typing import Any

import pynvml

from jigsaw_triton.gpus.reported import MigMode, ReportedGpu, ReportedInstance, ReportedProfile

Handle = Any
"""Of a GPU instance or a compute instance; what is in it is NVML's."""

_MOST_PLACEMENTS = 16
_MOST_INSTANCES = 16
_ABSENT = (pynvml.NVMLError_NotSupported, pynvml.NVMLError_InvalidArgument)
"""What drivers answer for a profile of the enumeration that the board has not."""

_GONE = (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument)
"""What drivers answer for what was destroyed meanwhile."""


class Nvml:
    """An open library. Handles of GPUs are asked for anew each time: a driver may be loaded anew meanwhile."""

    def __init__(self) -> None:
        self._initialised = False
        self._profiles: dict[str, tuple[ReportedProfile, ...]] = {}
        self._parts: dict[tuple[str, int], tuple[tuple[int, int], ...]] = {}

    def driver_version(self) -> str:
        """Of the driver."""
        with self._open():
            return str(pynvml.nvmlSystemGetDriverVersion())

    def count(self) -> int:
        """Of GPUs."""
        with self._open():
            return int(pynvml.nvmlDeviceGetCount())

    def gpu(self, index: int) -> ReportedGpu:
        """One GPU."""
        with self._open():
            return self._gpu(index)

    def create_gpu_instance(self, index: int, profile: int, start: int, size: int) -> Handle:
        """Creates a GPU instance exactly there."""
        with self._open():
            place = pynvml.c_nvmlGpuInstancePlacement_t(start, size)
            return pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(_device(index), profile, byref(place))

    def create_compute_instance(self, instance: Handle, profile: int) -> Handle:
        """Creates a compute instance in a GPU instance."""
        with self._open():
            return pynvml.nvmlGpuInstanceCreateComputeInstance(instance, profile)

    def whole_profile(self, instance: Handle, sm: int) -> int:
        """The compute instance profile that has all multiprocessors of a GPU instance.

        Args:
            instance: The GPU instance.
            sm: How many it has.

        Raises:
            NVMLError: There is none.
        """
        with self._open():
            for profile, multiprocessors in _part_profiles(instance):
                if multiprocessors == sm:
                    return profile
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def uuid(self, compute_instance: Handle) -> str:
        """UUID of the MIG device of a compute instance."""
        with self._open():
            return _uuid(compute_instance)

    def compute_instance(self, index: int, instance: int, uuid: str) -> Handle | None:
        """The compute instance of this UUID in a GPU instance; None where it is gone."""
        with self._open(), contextlib.suppress(*_GONE):
            gpu_instance = pynvml.nvmlDeviceGetGpuInstanceById(_device(index), instance)
            for profile, _ in _part_profiles(gpu_instance):
                for part in _compute_instances(gpu_instance, profile):
                    if _uuid(part) == uuid:
                        return part
        return None

    def gpu_instance(self, index: int, instance: int) -> Handle:
        """A GPU instance by its id."""
        with self._open():
            return pynvml.nvmlDeviceGetGpuInstanceById(_device(index), instance)

    def destroy_compute_instance(self, compute_instance: Handle) -> None:
        """Destroys it."""
        with self._open():
            pynvml.nvmlComputeInstanceDestroy(compute_instance)

    def destroy_gpu_instance(self, instance: Handle) -> None:
        """Destroys it."""
        with self._open():
            pynvml.nvmlGpuInstanceDestroy(instance)

    def check_device(self, uuid: str) -> None:
        """Asks for a GPU or MIG device by its UUID.

        Raises:
            NVMLError_NotFound: There is none.
        """
        with self._open():
            pynvml.nvmlDeviceGetHandleByUUID(uuid)

    def processes(self, uuid: str) -> tuple[int, ...]:
        """Ids of the processes on a MIG device or a GPU, ascending."""
        with self._open():
            device = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            return tuple(sorted({p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(device)}))

    def set_mig_mode(self, index: int, *, on: bool) -> None:
        """Asks for MIG to be on or off. Whether it is then has to be read: it may take a reset."""
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
            # It was unloaded: the next call starts from the beginning.
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
            # Others may destroy what they have between two calls: what is gone is left out.
            with contextlib.suppress(*_GONE):
                yield self._instance(gpu, handle, profile)

    def _instance(self, gpu: str, handle: Handle, profile: ReportedProfile) -> ReportedInstance:
        info = pynvml.nvmlGpuInstanceGetInfo(handle)
        if (gpu, profile.id) not in self._parts:
            self._parts[gpu, profile.id] = tuple(_part_profiles(handle))
        parts, whole = self._compute_instances(handle, self._parts[gpu, profile.id], profile.sm)
        return ReportedInstance(info.id, info.profileId, info.placement.start, parts, whole)

    def _compute_instances(
        self, instance: Handle, profiles: tuple[tuple[int, int], ...], sm: int
    ) -> tuple[tuple[str, ...], str]:
        """UUIDs of all compute instances, and of the one that has all multiprocessors."""
        parts: list[str] = []
        # The most multiprocessors first: where there is one that has them all, there is no other.
        for profile, multiprocessors in sorted(profiles, key=lambda p: -p[1]):
            for part in _compute_instances(instance, profile):
                try:
                    uuid = _uuid(part)
                except _GONE:
                    continue
                if multiprocessors == sm:
                    return (uuid,), uuid
                parts.append(uuid)
        return tuple(parts), ""


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


def _part_profiles(instance: Handle) -> Iterator[tuple[int, int]]:
    """Id and multiprocessors of each compute instance profile of a GPU instance."""
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
