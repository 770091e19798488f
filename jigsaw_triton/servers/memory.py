"""Limits the heap of a running server through the kernel's limit on data (RLIMIT_DATA)."""

import contextlib
import resource
from pathlib import Path

_SPARE_THREADS = 16
"""Threads that a server may start between two updates of the limit, to which each stack counts in full. A server that
loads models starts more threads, and hangs if it cannot, so the limit must be lifted first."""

_DEFAULT_STACK = 2 * 2**20
"""Stack size of a thread, in bytes, if there is no limit on it."""


def limit_heap(pid: int, heap_mib: int) -> bool:
    """Limits the heap of a process. Call it again when the number of its threads may have changed.

    The kernel counts the stacks of threads as data too, at their full size. The limit is therefore the sum of the heap
    and the stacks of all threads, with some to spare. An allocation beyond it fails, which ends a tritonserver.

    Args:
        pid: Id of the process.
        heap_mib: Largest heap in MiB.

    Returns:
        True if the limit is in force; False if the process has ended or belongs to another user.
    """
    with contextlib.suppress(OSError, ValueError, StopIteration):
        limit = heap_limit(
            Path(f"/proc/{pid}/status").read_text(), resource.prlimit(pid, resource.RLIMIT_STACK)[0], heap_mib
        )
        _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.prlimit(pid, resource.RLIMIT_DATA, (limit, hard))
        return True
    return False


def lift_heap_limit(pid: int) -> None:
    """Lifts the limit on a process's heap as far as allowed."""
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
        resource.prlimit(pid, resource.RLIMIT_DATA, (hard, hard))


def heap_limit(status: str, stack: int, heap_mib: int) -> int:
    """Returns the limit on a process's data, in bytes.

    Args:
        status: Text of /proc/<pid>/status.
        stack: Limit on the size of a stack, in bytes.
        heap_mib: Largest heap in MiB.

    Raises:
        StopIteration: The text lacks the number of threads.
    """
    threads = int(next(line for line in status.splitlines() if line.startswith("Threads:")).split()[1])
    stack = _DEFAULT_STACK if stack == resource.RLIM_INFINITY else stack
    return heap_mib * 2**20 + (threads + _SPARE_THREADS) * stack
