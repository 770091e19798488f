"""Measures the memory of processes."""

from collections.abc import Iterable
from pathlib import Path


def held_mib(pids: Iterable[int], *, proc: Path = Path("/proc")) -> float:
    """Returns the memory of processes in MiB, with shared pages divided among their users (PSS).

    Processes that have ended count as 0.
    """
    total_kib = 0
    for pid in pids:
        try:
            text = (proc / str(pid) / "smaps_rollup").read_text()
        except OSError:
            continue
        total_kib += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total_kib / 1024
