"""Runs a program that does not outlive the process that started it: launcher.py PARENT_PID PROGRAM ARGUMENT...

Run as a script in a fresh interpreter, so it imports the standard library alone. It becomes the program (exec), which
keeps the process id and the signal that it set. A preexec_fn instead would run between fork and exec of a process
with threads, where any lock may be held.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, argv: list[str]) -> None:
    """Has the kernel send SIGTERM when the parent's thread that started this process ends, then runs the program."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # It died before the signal was set.
        sys.exit(1)
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
