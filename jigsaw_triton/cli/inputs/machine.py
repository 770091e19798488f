"""Which GPUs this machine has, what MIG driver that calls for, and how emulation is spoken of."""

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Literal

import pynvml

from jigsaw_triton.errors import InputError, MigError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.gpus.nvml_gpus import NvmlGpus

Driver = Literal["nvml", "emulated"]

_PROCESSOR = "cpu"
"""Architecture of the board that stands for this machine's processor."""


def visible_gpus() -> tuple[str, ...]:
    """Names of the GPUs that answer NVML here; none where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        count = pynvml.nvmlDeviceGetCount()
        return tuple(str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(i))) for i in range(count))
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def processor_only(models: Collection[str]) -> bool:
    """Whether boards of these models all stand for this machine's processor."""
    return all(name in CATALOG and CATALOG[name].arch == _PROCESSOR for name in models)


def default_driver(models: Collection[str]) -> Driver:
    """The MIG driver for boards of these models where nobody names one: nvml where a GPU answers, else emulated."""
    return "nvml" if not processor_only(models) and visible_gpus() else "emulated"


def as_found(cluster: Cluster) -> Cluster:
    """The cluster as this machine's driver finds it; as it is where that is none of the cluster's."""
    boards = {gpu.id.index: gpu.board for gpu in cluster.gpus}
    if cluster.driver != "nvml" or len({gpu.id.node for gpu in cluster.gpus}) > 1:
        return cluster
    gpus = NvmlGpus(cluster.gpus[0].id.node if cluster.gpus else "", boards)
    with suppress(InputError, MigError):
        gpus.check()
        return gpus.survey(cluster)
    return cluster


def uncut(cluster: Cluster) -> Iterator[str]:
    """GPUs of a surveyed cluster that are one slice while others of their model are cut, a sentence each."""
    return (f"GPU {gpu.id} is one whole slice: {gpu.uncut}" for gpu in cluster.gpus if gpu.uncut)


def emulation(cluster: Cluster) -> str:
    """What of a cluster is emulated, in words; empty where nothing is."""
    if cluster.driver != "emulated":
        return ""
    counts = Counter(gpu.board.name for gpu in cluster.gpus)
    boards = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return (
        f"MIG on {boards} is emulated: its rules hold, but the models run on this machine's processor, "
        "and nothing limits what a slice computes"
    )
