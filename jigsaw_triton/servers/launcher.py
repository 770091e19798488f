"""Runs a program in place of this one: launcher.py PARENT_PID ends|survives PROGRAM ARGUMENT...

The program ends with the process that started it, or survives it. One that survives begins once its parent has written
a byte to its standard input: by then the parent has put the process on record.

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

ENDS, SURVIVES = "ends", "survives"
"""What becomes of the program when the process that started it ends."""

_PR_SET_PDEATHSIG = 1

STACK_VARIABLE = "JIGSAW_STACK_MIB"
"""Names the environment variable that says how large the stacks of the program's threads are to be at least."""

_STRICT_OVERCOMMIT = "2"

_MOST_FILES = 2**16
"""A server may have open: of no use beyond, where a system sets no limit."""


def main(parent: int, fate: str, argv: list[str]) -> None:
    """Runs the program with as many open files as are allowed.

    Args:
        parent: Process id of the parent.
        fate: `ENDS`: the kernel sends the program SIGTERM when the parent's thread that started it ends. `SURVIVES`: it
            does so only before the program has begun.
        argv: Absolute path of the program, and its arguments.
    """
    _end_with(parent, signal.SIGTERM)
    if fate == SURVIVES:
        if not os.read(0, 1):
            sys.exit(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _end_with(parent, 0)
    _allow_files()
    if stack_mib := os.environ.get(STACK_VARIABLE):
        _allow_stack(2**20 * int(stack_mib))
    os.execv(argv[0], argv)


def _end_with(parent: int, number: int) -> None:
    """Has the kernel send a signal when the parent's thread ends; 0 for none."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if number and os.getppid() != parent:  # The parent died before the signal was set.
        sys.exit(1)


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
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
