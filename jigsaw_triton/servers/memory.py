"""Memory of a running server: what its heap may take, by the kernel's limit on data (RLIMIT_DATA)."""

import contextlib
import resource
from pathlib import Path

_SPARE_THREADS = 16
"""Threads that a server may start between two looks; each takes a stack out of the limit, touched or not. A server that
loads models starts more of them, and hangs where it cannot: lift the limit first."""

_DEFAULT_STACK = 2 * 2**20
"""Stack of a thread where the size is unlimited."""


def limit_heap(pid: int, heap_mib: int) -> bool:
    """Limits a process's heap; call it again as its threads come and go.

    The kernel counts the stacks of threads as data, too, at their full size. So the limit is the heap that is allowed
    and the stacks of the threads that there are, with some to spare. An allocation beyond it fails, which ends a
    tritonserver.

    Args:
        pid: Id of the process.
        heap_mib: Heap that it may have.

    Returns:
        Whether the limit is in force; False where the process has ended or is another user's.
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
    """Lifts the limit on a process's heap, as far as that is allowed."""
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
        resource.prlimit(pid, resource.RLIMIT_DATA, (hard, hard))


def heap_limit(status: str, stack: int, heap_mib: int) -> int:
    """Limit on a process's data, in bytes.

    Args:
        status: Text of /proc/<pid>/status.
        stack: Limit on the size of a stack, in bytes.
        heap_mib: Heap that the process may have.

    Raises:
        StopIteration: The text does not tell the number of threads.
    """
    threads = int(next(line for line in status.splitlines() if line.startswith("Threads:")).split()[1])
    stack = _DEFAULT_STACK if stack == resource.RLIM_INFINITY else stack
    return heap_mib * 2**20 + (threads + _SPARE_THREADS) * stack
