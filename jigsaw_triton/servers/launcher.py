"""Runs a program that does not outlive the process that started it: launcher.py PARENT_PID PROGRAM ARGUMENT...

Run as a script in a fresh interpreter, so it imports the standard library alone. It becomes the program (exec), which
keeps the process id and the signal that it set. A preexec_fn instead would run between fork and exec of a process
with threads, where any lock may be held.
"""

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1

STACK_VARIABLE = "JIGSAW_STACK_MIB"
"""Names the environment variable that says how large the stacks of the program's threads are to be at least."""

_STRICT_OVERCOMMIT = "2"

_MOST_FILES = 2**16
"""A server may have open: of no use beyond, where a system sets no limit."""


def main(parent: int, argv: list[str]) -> None:
    """Has the kernel send SIGTERM when the parent's thread that started this process ends, then runs the program.

    With as many open files as are allowed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # It died before the signal was set.
        sys.exit(1)
    _allow_files()
    if stack_mib := os.environ.get(STACK_VARIABLE):
        _allow_stack(2**20 * int(stack_mib))
    os.execv(argv[0], argv)


def _allow_files() -> None:
    """Lets the program open as many files as it may.

    The usual 1,024 are a few hundred clients. One more connection and a tritonserver answers nobody new, not even about
    its health, and writes 10 MB a second to its log.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _allow_stack(size: int) -> None:
    """Gives the program's threads larger stacks, as far as that is allowed; it costs no memory before it is used."""
    if Path("/proc/sys/vm/overcommit_memory").read_text(encoding="ascii").strip() == _STRICT_OVERCOMMIT:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    size = size if hard == resource.RLIM_INFINITY else min(hard, size)
    # Where there is no limit the C library gives threads 2 MiB.
    if soft == resource.RLIM_INFINITY or soft < size:
        resource.setrlimit(resource.RLIMIT_STACK, (size, hard))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
