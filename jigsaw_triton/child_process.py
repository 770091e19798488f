"""A Python process that answers requests over a pipe, one at a time, and ends with the process that started it."""

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

_MAX_WAIT_S = 2e6
"""Longest wait in seconds that `poll` accepts, as it takes milliseconds as a 32-bit integer."""


class ChildEndedError(Exception):
    """The process ended before it answered.

    Args:
        status: Exit status, or minus the number of the signal that killed the process.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class ChildHungError(Exception):
    """The process did not answer in time and was killed."""


class ChildProcess:
    """A process in a session of its own, so that its own children end with it.

    Args:
        module: Name of the module to run. Its last argument is the number for `connected`.
        arguments: Arguments before that.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self.connection, theirs = Pipe()
        # The folder of the package, wherever it was imported from.
        root = Path(__file__).parents[1]
        path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
        with theirs:
            # -P keeps a module in the user's working directory from shadowing a library.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *arguments, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

    def call(self, request: object, timeout_s: float) -> Any:
        """Sends a request and waits for the answer. May be called in any thread, but not in two at a time.

        If it raises, no late answer is taken for the answer to another request: the process is dead.

        Raises:
            ChildHungError: The process did not answer in time.
            ChildEndedError: The process ended, by itself or by `kill`.
        """
        try:
            self.connection.send(request)
            if self.connection.poll(min(timeout_s, _MAX_WAIT_S)):
                return self.connection.recv()
        except (EOFError, OSError) as error:
            self.kill()
            raise ChildEndedError(self._process.returncode) from error
        except BaseException:
            self.close()
            raise
        self.close()
        raise ChildHungError

    def interrupt(self) -> None:
        """Interrupts the process, which raises a KeyboardInterrupt in its main thread."""
        if self.alive:
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Kills the process and its children. A call that waits for an answer in another thread ends at once."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Kills the process and closes the pipe."""
        self.connection.close()
        self.kill()


def connected(descriptor: int) -> Connection:
    """Connects this process to the one that started it, and kills this one's session when that one ends.

    Args:
        descriptor: Last argument of the command line.
    """
    connection = Connection(descriptor)
    Thread(target=_end_with_other_side, args=(descriptor,), daemon=True, name="other side").start()
    return connection


def _end_with_other_side(descriptor: int) -> None:
    # Without a mask, only the end of the other side wakes it up.
    poll = select.poll()
    poll.register(descriptor, 0)
    poll.poll()
    os.killpg(os.getpgrp(), signal.SIGKILL)
