"""Who else changes MIG on this machine: programs that would undo what is made here, and agents that hold instances."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

OWNERS: Mapping[str, str] = MappingProxyType(
    {
        "nvidia-mig-manager": "the GPU Operator's MIG manager",
        "nvidia-mig-parted": "mig-parted",
        "gpu-kubelet-plugin": "NVIDIA's DRA driver",
        "nvidia-dra-plugin": "NVIDIA's DRA driver",
    }
)
"""Program -> what it is. Each takes all of a GPU's MIG for its own."""

AGENTS = ("nv-hostengine", "dcgm-exporter")
"""Programs that look at instances, and hold them for a moment."""


def running_owners(*, root: Path = Path("/")) -> tuple[str, ...]:
    """What runs here that changes MIG by itself, in words, sorted; in a container, what runs in it.

    Args:
        root: Of the file system.
    """
    return tuple(sorted({OWNERS[program] for program in _programs(root) if program in OWNERS}))


def running_agents(*, root: Path = Path("/")) -> tuple[str, ...]:
    """Programs that run here and hold instances for a moment, sorted.

    Args:
        root: Of the file system.
    """
    return tuple(sorted(set(_programs(root)) & set(AGENTS)))


def _programs(root: Path) -> Iterator[str]:
    for process in (root / "proc").glob("[0-9]*"):
        try:
            yield Path((process / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")).name
        except OSError:  # It has ended.
            continue
