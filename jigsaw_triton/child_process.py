"""A Python process that answers requests over a pipe, one at a time, and ends with the process that started it."""

import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


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
    """A process that leads a session, and is killed with all processes of that session.

    A `ChildProcess` of its own leads another session. It ends because its connection does (`connected`).

    Args:
        module: Name of the module to run. Its last argument is the number for `connected`.
        arguments: Arguments before that.
        stderr: File descriptor that it writes its errors to; None for that of this process.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(self, module: str, *arguments: str, stderr: int | None = subprocess.DEVNULL) -> None:
        self.connection, theirs = Pipe()
        # The folder of the package, wherever it was imported from.
        root = Path(__file__).parents[1]
        path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
        # The process inherits the mask, so that an interrupt does not end it while it still imports its modules.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            with theirs:
                # -P keeps a module in the user's working directory from shadowing a library.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", module, *arguments, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, "PYTHONPATH": path},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    start_new_session=True,
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    @property
    def pid(self) -> int:
        """Id of the process, also after it has ended."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

    def call(self, request: object, timeout_s: float) -> Any:
        """Sends a request and waits for the answer. May be called in any thread, but not in two at a time.

        If it raises, no late answer is taken for the answer to another request: the process is dead.

        Raises:
            ChildHungError: The process did not read the request and answer it in time.
            ChildEndedError: The process ended, by itself or by `kill`.
        """
        hung = threading.Event()

        def give_up() -> None:
            hung.set()
            self.kill()

        # Neither `send` nor `recv` has a timeout of its own: both end when the process does.
        timer = threading.Timer(min(timeout_s, threading.TIMEOUT_MAX), give_up)
        timer.daemon = True
        try:
            timer.start()
            try:
                self.connection.send(request)
                answer = self.connection.recv()
            finally:
                timer.cancel()
                timer.join()
        except (EOFError, OSError) as error:
            self.kill()
            if hung.is_set():
                raise ChildHungError from error
            raise ChildEndedError(self._process.returncode) from error
        except BaseException:
            self.close()
            raise
        if hung.is_set():
            # The answer came after the timeout, while the process was being killed.
            raise ChildHungError
        return answer

    def interrupt(self) -> None:
        """Sends SIGINT to the process, which gets it once it has called `connected`."""
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
        # Kill first: a call in another thread then reads an end of file instead of using a closed connection.
        self.kill()
        self.connection.close()


def connected(descriptor: int) -> Connection:
    """Connects this process to the one that started it, and kills this one's session when that one ends.

    It also lets SIGINT through. A process that shall survive `ChildProcess.interrupt` sets its handler before.

    Args:
        descriptor: Last argument of the command line.
    """
    connection = Connection(descriptor)
    threading.Thread(target=_end_with_other_side, args=(descriptor,), daemon=True, name="other side").start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    return connection


def _end_with_other_side(descriptor: int) -> None:
    # An empty event mask reports only hang-ups and errors, so poll returns when the other side ends.
    poll = select.poll()
    poll.register(descriptor, 0)
    poll.poll()
    os.killpg(os.getpgrp(), signal.SIGKILL)
