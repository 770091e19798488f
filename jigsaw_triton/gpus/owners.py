"""Finds other programs that affect MIG on this machine: MIG managers, and agents that hold instances for a moment."""

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
"""Descriptions of MIG managers by program name. Each of them claims all MIG instances of a GPU for itself."""

AGENTS = ("nv-hostengine", "dcgm-exporter")
"""Monitoring agents, which hold instances for a moment while they read them."""


def running_owners(*, root: Path = Path("/")) -> tuple[str, ...]:
    """Returns descriptions of the running MIG managers, sorted. In a container it only sees the container's processes.

    Args:
        root: Root of the file system.
    """
    return tuple(sorted({OWNERS[program] for program in _programs(root) if program in OWNERS}))


def running_agents(*, root: Path = Path("/")) -> tuple[str, ...]:
    """Returns the names of the running monitoring agents that hold instances for a moment, sorted.

    Args:
        root: Root of the file system.
    """
    return tuple(sorted(set(_programs(root)) & set(AGENTS)))


def _programs(root: Path) -> Iterator[str]:
    for process in (root / "proc").glob("[0-9]*"):
        try:
            yield Path((process / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")).name
        except OSError:  # The process has ended.
            continue
