"""Finds the processes that hold an emulated MIG instance: those that were started with it as their CUDA device."""

from pathlib import Path

_VARIABLE = b"CUDA_VISIBLE_DEVICES="


def holders(uuid: str, *, proc: Path = Path("/proc")) -> tuple[int, ...]:
    """Returns the ids of the processes whose CUDA_VISIBLE_DEVICES names the instance, ascending.

    The result leaves out processes that end during the search, zombies, and processes of other users whose environment
    is hidden.

    Args:
        uuid: UUID of the instance.
        proc: Mount point of procfs.
    """
    wanted = uuid.encode()
    return tuple(sorted(int(entry.name) for entry in proc.glob("[0-9]*") if wanted in _devices(entry / "environ")))


def _devices(environ: Path) -> list[bytes]:
    try:
        variables = environ.read_bytes().split(b"\0")
    except OSError:
        return []
    return [
        device.strip()
        for variable in variables
        if variable.startswith(_VARIABLE)
        for device in variable.removeprefix(_VARIABLE).split(b",")
    ]


def process_name(pid: int) -> str:
    """Returns the name of a process; empty if the process has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
