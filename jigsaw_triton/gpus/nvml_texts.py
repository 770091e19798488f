"""Texts of the NVML calls that change MIG, for the journal and for dry runs."""

from collections.abc import Iterator

from jigsaw_triton.gpus.model import Placement
from jigsaw_triton.gpus.rearrangement import Rearrangement
from jigsaw_triton.gpus.reported import ReportedGpu, ReportedProfile


def create_gpu_instance(index: int, profile: ReportedProfile, start: int) -> str:
    """Returns the text of a call that creates a GPU instance, with the profile's id and the placement as start:size."""
    place = f"{start}:{profile.memory_slices}"
    return f"nvmlDeviceCreateGpuInstanceWithPlacement(GPU {index}, profile {profile.id}, {place})"


def create_compute_instance(index: int, placement: Placement, sm: int) -> str:
    """Returns the text of a call that creates a compute instance with all multiprocessors of its GPU instance."""
    return f"nvmlGpuInstanceCreateComputeInstance(GPU {index} {placement}, {sm} multiprocessors)"


def destroy_compute_instance(index: int, placement: Placement) -> str:
    """Returns the text of a call that destroys the compute instance at a placement."""
    return f"nvmlComputeInstanceDestroy(GPU {index} {placement})"


def destroy_gpu_instance(index: int, placement: Placement) -> str:
    """Returns the text of a call that destroys the GPU instance at a placement."""
    return f"nvmlGpuInstanceDestroy(GPU {index} {placement})"


def calls_of(change: Rearrangement, gpu: ReportedGpu) -> Iterator[str]:
    """Yields the calls that a rearrangement of a GPU needs, in order, skipping instances that are already gone."""
    present = {gpu.named(instance): instance for instance in gpu.instances}
    for instance in change.destroy:
        if instance.uuid in present:
            parts = present[instance.uuid].parts
            yield from (destroy_compute_instance(gpu.index, instance.placement) for _ in parts)
            yield destroy_gpu_instance(gpu.index, instance.placement)
    kinds = gpu.kinds()
    for placement in change.create:
        profile = kinds[placement.slice]
        yield create_gpu_instance(gpu.index, profile, placement.start)
        yield create_compute_instance(gpu.index, placement, profile.sm)
