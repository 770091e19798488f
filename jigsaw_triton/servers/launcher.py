"""Runs a program in place of this one: launcher.py PARENT_PID ends|survives PROGRAM ARGUMENT...

The program ends with its parent process, or outlives it. In either case it does not start if its parent has already
ended.

It is run as a script in a fresh interpreter, so it imports only the standard library. It turns into the program by
exec, which keeps the process id and the parent-death signal. A preexec_fn would instead run between fork and exec of a
process with threads, in which any lock may be held.
"""

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

ENDS, SURVIVES = "ends", "survives"
"""Fate of the program when the process that started it ends."""

_PR_SET_PDEATHSIG = 1

STACK_VARIABLE = "JIGSAW_STACK_MIB"
"""Environment variable with the minimum stack size, in MiB, of the program's threads."""

_STRICT_OVERCOMMIT = "2"

_MOST_FILES = 2**16
"""Limit on open files if the system has none; a server cannot use more."""


def main(parent: int, fate: str, argv: list[str]) -> None:
    """Runs the program with raised limits.

    Args:
        parent: Process id of the parent.
        fate: `ENDS`: the kernel sends the program SIGTERM when the thread that started it ends. `SURVIVES`: it outlives
            its parent.
        argv: Absolute path of the program, and its arguments.
    """
    if fate == ENDS:
        _end_with_parent()
    if os.getppid() != parent:
        # The parent has ended, perhaps before the signal was set.
        sys.exit(1)
    _allow_files()
    if stack_mib := os.environ.get(STACK_VARIABLE):
        _allow_stack(2**20 * int(stack_mib))
    os.execv(argv[0], argv)


def _end_with_parent() -> None:
    """Has the kernel send SIGTERM when the parent's thread ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def _allow_files() -> None:
    """Raises the soft limit on open files to the hard limit.

    The usual 1,024 files suffice for a few hundred clients. With one more connection, a tritonserver answers no new
    client, not even health checks, and writes 10 MB per second to its log.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _allow_stack(size: int) -> None:
    """Raises the stack size of the program's threads as far as allowed; untouched stack takes no memory."""
    if Path("/proc/sys/vm/overcommit_memory").read_text(encoding="ascii").strip() == _STRICT_OVERCOMMIT:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    size = size if hard == resource.RLIM_INFINITY else min(hard, size)
    # Without a limit, the C library gives threads only 2 MiB.
    if soft == resource.RLIM_INFINITY or soft < size:
        resource.setrlimit(resource.RLIMIT_STACK, (size, hard))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
