"""GPUs of this machine, the MIG driver that they need, and notices about emulation."""

import math
import os
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Literal

from jigsaw_triton.errors import InputError, MigError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.servers.cgroups import limits

Driver = Literal["nvml", "emulated"]

THIS_PROCESSOR = "1xcpu"
"""GPUs to measure on by default: the processor of this machine."""

_PROCESSOR = "cpu"
"""Architecture of the board that stands for this machine's processor."""


def visible_gpus() -> tuple[str, ...]:
    """Returns the names of the GPUs that NVML reports on this machine; none without a driver."""
    import pynvml

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
    """Returns True if all of these GPU models stand for this machine's processor."""
    return all(name in CATALOG and CATALOG[name].arch == _PROCESSOR for name in models)


def usable_processors() -> float:
    """Returns the processors of this machine that this process and its children may use at a time."""
    return min(float(len(os.sched_getaffinity(0))), limits().processors or math.inf)


def default_driver(models: Collection[str]) -> Driver:
    """Returns the MIG driver for GPU models if none is configured: nvml if a GPU answers, else emulated."""
    return "nvml" if not processor_only(models) and visible_gpus() else "emulated"


def surveyed(cluster: Cluster) -> Cluster:
    """Returns the cluster as NVML reports it, or unchanged if its GPUs are not those of this machine."""
    from jigsaw_triton.gpus.nvml_gpus import NvmlGpus

    boards = {gpu.id.index: gpu.board for gpu in cluster.gpus}
    if cluster.agents is not None or cluster.driver != "nvml" or len({gpu.id.node for gpu in cluster.gpus}) > 1:
        return cluster
    gpus = NvmlGpus(cluster.gpus[0].id.node if cluster.gpus else "", boards)
    with suppress(InputError, MigError):
        gpus.check()
        return gpus.survey(cluster)
    return cluster


def uncut_gpus(cluster: Cluster) -> Iterator[str]:
    """Yields a sentence for each GPU that is used whole although MIG cuts others of its model.

    Args:
        cluster: The cluster, as its driver reports it.
    """
    return (f"GPU {gpu.id} is one whole slice: {gpu.uncut}" for gpu in cluster.gpus if gpu.uncut)


def emulation(cluster: Cluster) -> str:
    """Returns a sentence that says what is emulated, or an empty string."""
    if cluster.driver != "emulated":
        return ""
    counts = Counter(gpu.board.name for gpu in cluster.gpus)
    boards = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return (
        f"MIG on {boards} is emulated: its rules hold, but the models run on this machine's processor, "
        "and nothing limits the compute of a slice"
    )
