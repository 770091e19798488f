"""How much memory processes hold."""

from collections.abc import Iterable
from pathlib import Path


def held_mib(pids: Iterable[int], *, proc: Path = Path("/proc")) -> float:
    """Memory of processes in MiB: pages that several share are divided among them (PSS). Ended ones hold none."""
    total_kib = 0
    for pid in pids:
        try:
            text = (proc / str(pid) / "smaps_rollup").read_text()
        except OSError:
            continue
        total_kib += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total_kib / 1024
