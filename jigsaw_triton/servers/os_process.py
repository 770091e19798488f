"""Processes of the operating system that are watched whether or not this process started them.

asyncio's own subprocesses end with the event loop that started them, and cannot stand for a process that an earlier
controller started.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from jigsaw_triton.servers import launcher

UNKNOWN_STATUS = 256
"""Exit status of a process that another process started: the kernel reports the real one to its parent alone."""


def describe_status(status: int) -> str:
    """Returns an exit status in words: `signal 9`, `status 1`.

    Args:
        status: Exit status; negative for a signal, `UNKNOWN_STATUS` where it is not known.
    """
    if status == UNKNOWN_STATUS:
        return "unknown status"
    return f"signal {-status}" if status < 0 else f"status {status}"


def start_time(pid: int) -> int | None:
    """Returns the start time of a living process in kernel ticks since boot; None if it has ended."""
    try:
        # Fields after the command's name in parentheses: the state is the 3rd of the whole line, the start the 22nd.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def processor_s(pids: Iterable[int]) -> float:
    """Returns the processor time that processes have used so far, in seconds. Those that have ended count as 0."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            # Times in user mode and in the kernel are the 14th and 15th field.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class OsProcess:
    """A running process that can be waited for and sent signals. Create it inside the event loop that watches it.

    Attributes:
        pid: Process id.
    """

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._child = child
        self._status: int | None = None
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._fd: int | None = os.pidfd_open(pid)
        self._loop.add_reader(self._fd, self._reap)

    @classmethod
    def spawn(
        cls,
        argv: tuple[str, ...],
        *,
        output: int,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        survives: bool = False,
    ) -> "OsProcess":
        """Starts a program in a session and process group of its own.

        Args:
            argv: Absolute path of the program, and its arguments.
            output: File descriptor for stdout and stderr.
            env: Environment; None for that of this process.
            cwd: Working directory; None for that of this process.
            survives: True for a program that outlives this process; its environment must then show whose it is.
                Otherwise it gets SIGTERM when the thread that started it ends: call this from the main thread then.
        """
        fate = launcher.SURVIVES if survives else launcher.ENDS
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), fate, *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            cwd=cwd,
            start_new_session=True,
            umask=0o077,
        )
        return cls(child.pid, child)

    @classmethod
    def find(cls, pid: int, started: int) -> "OsProcess | None":
        """Returns the process with this id if it is the one that started then; None if that one has ended.

        Args:
            pid: Process id.
            started: Start time in kernel ticks since boot, by `start_time`.
        """
        try:
            found = cls(pid)
        except OSError:
            return None
        # The start time is compared after the descriptor was opened, since the id cannot be reused from then on.
        if start_time(pid) == started:
            return found
        found._forget()
        return None

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while the process runs."""
        return self._status

    async def wait(self) -> int:
        """Waits until the process ends; returns its exit status."""
        await self._ended.wait()
        assert self._status is not None
        return self._status

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal; a process that has ended gets none."""
        if self._fd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    def _reap(self) -> None:
        self._forget()
        self._status = UNKNOWN_STATUS if self._child is None else self._child.wait()
        self._ended.set()

    def _forget(self) -> None:
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None
