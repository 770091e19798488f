"""Which processes hold an emulated MIG instance, those that were started with it as their CUDA device; their names."""

from pathlib import Path

_VARIABLE = b"CUDA_VISIBLE_DEVICES="


def holders(uuid: str, *, proc: Path = Path("/proc")) -> tuple[int, ...]:
    """Ids of the processes whose CUDA_VISIBLE_DEVICES names the instance, ascending.

    A process that ends during the search, is dead but not yet collected, or belongs to another user whose environment
    is hidden, is not among them.

    Args:
        uuid: Of the instance.
        proc: Where the kernel shows its processes.
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


def process_name(pid: int, *, proc: Path = Path("/proc")) -> str:
    """What a process is called; empty where it is gone.

    Args:
        pid: Its id.
        proc: Where the kernel shows its processes.
    """
    try:
        return (proc / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""
