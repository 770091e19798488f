"""Which GPUs this machine has, what MIG driver that calls for, and how emulation is spoken of."""

from collections import Counter
from collections.abc import Collection
from typing import Literal

import pynvml

from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Cluster

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
