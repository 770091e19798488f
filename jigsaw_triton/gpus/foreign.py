"""MIG instances of others on the GPUs of a cluster."""

from collections.abc import Iterable
from dataclasses import replace

from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, MigInstance, Placement


def with_foreign(cluster: Cluster, instances: Iterable[MigInstance]) -> Cluster:
    """Returns the cluster with others' instances, as a driver reports them, on its GPUs.

    Instances of others that the cluster lists itself are kept if they fit beside the reported ones; otherwise they are
    outdated and dropped.

    Args:
        cluster: Cluster to update.
        instances: MIG instances of others. Instances on GPUs outside the cluster are ignored.
    """
    found: dict[GpuId, list[Placement]] = {}
    for instance in instances:
        found.setdefault(instance.gpu, []).append(instance.placement)

    def known(gpu: Gpu) -> Gpu:
        foreign = found.get(gpu.id, [])
        for placement in gpu.foreign:
            if fits(gpu.board, [*foreign, placement]) is None:
                foreign.append(placement)
        return replace(gpu, foreign=tuple(sorted(foreign)))

    return replace(cluster, gpus=tuple(map(known, cluster.gpus)))
