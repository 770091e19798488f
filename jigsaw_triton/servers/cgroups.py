"""What the control groups of this process allow: memory, processors, processes. Versions 1 and 2 of Linux's cgroups."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 2**60
"""What version 1 writes where nothing limits is larger."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The tightest of all groups around this process; None where nothing limits.

    Attributes:
        memory_mib: Of all processes of the group together.
        processors: That they may use at a time.
        processes: And threads, that there may be.
    """

    memory_mib: int | None
    processors: float | None
    processes: int | None


def limits(*, root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> Limits:
    """Reads them; what cannot be read limits nothing.

    Args:
        root: Where the kernel shows the groups.
        membership: What tells the groups of a process.
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
    """Controller, empty for version 2, -> path of the group."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return {}
    parts = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    return {controller: path for _, controllers, path in parts for controller in controllers.split(",")}


def _folders(root: Path, groups: dict[str, str], controller: str) -> Iterator[Path]:
    """The group of a controller and those around it; in a container the last may be all there is."""
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
    except (OSError, ValueError):  # Version 2 writes `max` where nothing limits.
        return None
    return number if 0 <= number < _UNLIMITED else None


def _processors(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return float(quota) / float(period)
    except (OSError, ValueError):
        quota_us, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us else None
