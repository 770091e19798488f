"""Processes in the background, which live on when the process that has started them ends."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from jigsaw_triton.errors import JigsawError
from jigsaw_triton.servers.logfile import appending, log_size, with_log


class BackgroundProcess:
    """A process in a session of its own that appends its output to a log.

    Args:
        name: Name of the process for messages, such as `the agent`.
        command: Command line.
        log: Log file, whose folder must exist.
        env: Environment variables that it has beside those of this process.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self._name = name
        self._log = log
        self._log_start = log_size(log)
        with appending(log) as output:
            self._child = subprocess.Popen(
                command,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._child.pid

    def poll(self) -> int | None:
        """Returns the exit status, negative for a signal; None if the process runs."""
        return self._child.poll()

    def failure(self) -> JigsawError:
        """Returns the error that the process did not start, with the end of its log."""
        message = with_log(f"{self._name} did not start", self._log, since=self._log_start)
        return JigsawError(message, where=str(self._log), hint="correct what its log names, and start it again")

    def end(self, number: signal.Signals) -> None:
        """Sends the process a signal, and waits until it has ended."""
        self._child.send_signal(number)
        self._child.wait()

    def collect(self) -> None:
        """Has a thread collect the exit status, for which this process need not wait."""
        threading.Thread(target=self._child.wait, daemon=True).start()


@contextmanager
def started(
    name: str,
    command: Sequence[str],
    log: Path,
    env: Mapping[str, str] = MappingProxyType({}),
    *,
    end_with: signal.Signals = signal.SIGKILL,
) -> Iterator[BackgroundProcess]:
    """Starts a process in the background. The `with` block waits until it answers; if the block fails, it is ended.

    Args:
        name: Name of the process for messages, such as `the agent`.
        command: Command line.
        log: Log file, whose folder must exist.
        env: Environment variables that it has beside those of this process.
        end_with: Signal that ends the process.
    """
    process = BackgroundProcess(name, command, log, env)
    try:
        yield process
    except BaseException:
        process.end(end_with)
        raise
    process.collect()
