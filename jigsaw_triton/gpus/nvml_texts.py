"""Calls that change MIG, as they are told: before they are made, in the journal, and by a dry run instead."""

from collections.abc import Iterator

from jigsaw_triton.gpus.model import Placement
from jigsaw_triton.gpus.rearrangement import Rearrangement
from jigsaw_triton.gpus.reported import ReportedGpu, ReportedProfile


def create_gpu_instance(index: int, profile: ReportedProfile, start: int) -> str:
    """With the profile's id, and the placement as start:size."""
    place = f"{start}:{profile.memory_slices}"
    return f"nvmlDeviceCreateGpuInstanceWithPlacement(GPU {index}, profile {profile.id}, {place})"


def create_compute_instance(index: int, placement: Placement, sm: int) -> str:
    """Its profile is the one that has all of the GPU instance's multiprocessors."""
    return f"nvmlGpuInstanceCreateComputeInstance(GPU {index} {placement}, {sm} multiprocessors)"


def destroy_compute_instance(index: int, placement: Placement) -> str:
    """By where it is."""
    return f"nvmlComputeInstanceDestroy(GPU {index} {placement})"


def destroy_gpu_instance(index: int, placement: Placement) -> str:
    """By where it is."""
    return f"nvmlGpuInstanceDestroy(GPU {index} {placement})"


def calls_of(change: Rearrangement, gpu: ReportedGpu) -> Iterator[str]:
    """The calls that a rearrangement of a GPU takes, in their order; what is gone by now takes none to destroy."""
    there = {gpu.named(instance): instance for instance in gpu.instances}
    for instance in change.destroy:
        if instance.uuid in there:
            parts = there[instance.uuid].parts
            yield from (destroy_compute_instance(gpu.index, instance.placement) for _ in parts)
            yield destroy_gpu_instance(gpu.index, instance.placement)
    kinds = gpu.kinds()
    for placement in change.create:
        profile = kinds[placement.slice]
        yield create_gpu_instance(gpu.index, profile, placement.start)
        yield create_compute_instance(gpu.index, placement, profile.sm)
