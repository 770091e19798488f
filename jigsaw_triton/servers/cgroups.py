"""Reads the limits that Linux control groups, version 1 or 2, impose on this process."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 2**60
"""Smallest value that means no limit: version 1 writes a larger number if there is none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The tightest limits of all control groups of this process.

    Attributes:
        memory_mib: Memory that all processes of a group may use together; None if it is unlimited.
        processors: Processors that they may use at a time; None if they are unlimited.
        processes: Number of processes and threads that may exist; None if it is unlimited.
    """

    memory_mib: int | None
    processors: float | None
    processes: int | None


def limits(*, root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> Limits:
    """Reads the limits of this process; a limit that cannot be read counts as unlimited.

    Args:
        root: Folder in which the kernel shows the groups.
        membership: File that lists the groups of the process.
    """
    groups = _groups(membership)
    memory = _least(root, groups, "memory", ("memory.max", "memory.limit_in_bytes"))
    processes = _least(root, groups, "pids", ("pids.max",))
    shares = [share for folder in _folders(root, groups, "cpu") if (share := _processors(folder)) is not None]
    return Limits(
        None if memory is None else int(memory) // 2**20,
        min(shares, default=None),
        None if processes is None else int(processes),
    )


def _groups(membership: Path) -> dict[str, str]:
    """Returns a mapping from controller (empty for version 2) to the path of its group."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return {}
    parts = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    return {controller: path for _, controllers, path in parts for controller in controllers.split(",")}


def _folders(root: Path, groups: dict[str, str], controller: str) -> Iterator[Path]:
    """Yields the folders of a controller's group and its parents; in a container, only the last may exist."""
    base = root / controller if controller in groups else root
    path = groups.get(controller, groups.get("", "/")).strip("/")
    folder = base / path if path else base
    while folder != base:
        yield folder
        folder = folder.parent
    yield base


def _least(root: Path, groups: dict[str, str], controller: str, files: tuple[str, ...]) -> float | None:
    found = [_number(folder / file) for folder in _folders(root, groups, controller) for file in files]
    return min((number for number in found if number is not None), default=None)


def _number(file: Path) -> float | None:
    try:
        number = float(file.read_text())
    except (OSError, ValueError):  # Version 2 writes `max` if there is no limit.
        return None
    return number if 0 <= number < _UNLIMITED else None


def _processors(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return float(quota) / float(period)
    except (OSError, ValueError):
        quota_us, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us else None
