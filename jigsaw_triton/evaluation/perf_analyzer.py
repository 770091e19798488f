"""Runs perf_analyzer and makes sure that no process of it is left running."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jigsaw_triton.errors import InputError, ServerError
from jigsaw_triton.evaluation.load import Load, Measured, command_line, input_data, read_report
from jigsaw_triton.runtime.dtypes import Arrays

_OVERHEAD_S = 60.0
_OVERTIME = 4
"""Factor of a run's duration after which the run is taken to hang.

A healthy run takes up to twice its duration, since each window waits for its requests.
"""


class LoadRun:
    """One run of perf_analyzer.

    Args:
        binary: Path of perf_analyzer.
        load: Load to generate.
        folder: Folder for the run's files. It is created, and kept so that the command can be repeated by hand.
    """

    def __init__(self, binary: Path, load: Load, folder: Path) -> None:
        self._load = load
        self._data = folder / f"{load.model}.json"
        self._report = folder / f"{load.model}.csv"
        self.command = command_line(binary, load, self._data, self._report)

    def prepare(self, tensors: Arrays) -> None:
        """Writes the file with the data to send.

        Raises:
            InputError: The file cannot be written.
        """
        try:
            self._data.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._data.write_text(input_data(tensors), encoding="utf-8")
            self._report.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"the file cannot be written ({error.strerror})",
                where=str(self._data),
                hint="choose another folder with --state or JIGSAW_STATE",
            ) from error

    def measure(self) -> Measured:
        """Runs perf_analyzer and blocks until it ends.

        Raises:
            EmptyWindowError: perf_analyzer aborted; a longer run may succeed.
            ServerError: perf_analyzer aborted for another reason, or hung.
        """
        output = _run(self.command, self._load.duration_s * _OVERTIME + _OVERHEAD_S, where=self._load.url)
        report = self._report.read_text(encoding="utf-8") if self._report.exists() else ""
        return read_report(report, output, self._load.url)


def _run(command: Sequence[str], timeout_s: float, *, where: str) -> str:
    """Runs the command and returns its output. The command and its children have ended when this returns or raises."""
    # The command runs in its own session, because the packaged program starts another one, which a signal to the first
    # process alone would not reach.
    process: subprocess.Popen[str] | None = None
    try:
        # A signal that ended `Popen` itself would leave a process that nobody knows.
        with _signals_deferred():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise ServerError(
            f"perf_analyzer did not end within {timeout_s:.0f} s",
            where=where,
            hint="check with `jigsaw-triton status` that the graph answers",
        ) from error
    finally:
        if process is not None:
            with process:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
    return output


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Handles the signals that end the program only after the `with` block. Does nothing outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {
        number: signal.signal(number, lambda got, _: received.append(got)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
        for got in received:
            signal.raise_signal(got)
