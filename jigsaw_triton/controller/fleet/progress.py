"""Progress of processes that load a model: one that neither computes nor reads for long hangs."""

from collections.abc import Callable, Collection
from pathlib import Path


class Progress:
    """Tracks how long each process has made no progress.

    Args:
        stuck_s: Seconds without progress after which a process hangs.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, stuck_s: float, clock: Callable[[], float]) -> None:
        self._stuck_s = stuck_s
        self._clock = clock
        self._seen: dict[int, tuple[int, float]] = {}

    def looked(self, work: dict[int, int]) -> Collection[int]:
        """Notes the work that processes have done so far. Returns the processes that hang.

        Args:
            work: Process id -> work, by `work_of`. Processes that are not in it are forgotten.
        """
        now_s = self._clock()
        seen = {pid: self._seen.get(pid, (done, now_s)) for pid, done in work.items()}
        self._seen = {pid: seen[pid] if seen[pid][0] == done else (done, now_s) for pid, done in work.items()}
        return [pid for pid, (_, since_s) in self._seen.items() if now_s - since_s >= self._stuck_s]


def work_of(pid: int) -> int:
    """Returns the processor time that a process has used, in ticks, and the bytes that it has read, as one sum."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        read = int(Path(f"/proc/{pid}/io").read_text().partition("rchar:")[2].split()[0])
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12]) + read
