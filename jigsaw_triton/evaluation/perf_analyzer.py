"""Running perf_analyzer, with nothing of it left behind."""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from jigsaw_triton.errors import InputError, ServerError
from jigsaw_triton.evaluation.load import Load, Measured, command_line, input_data, read_report
from jigsaw_triton.runtime.dtypes import Arrays

_OVERHEAD_S = 60.0
_OVERTIME = 4
"""A run takes up to twice its duration (windows wait for the requests in them); beyond this it hangs."""


class LoadRun:
    """One measurement.

    Args:
        binary: perf_analyzer.
        load: To make.
        folder: Where its files go; made, and kept so that the command can be run again by hand.
    """

    def __init__(self, binary: Path, load: Load, folder: Path) -> None:
        self._load = load
        self._data = folder / f"{load.model}.json"
        self._report = folder / f"{load.model}.csv"
        self.command = command_line(binary, load, self._data, self._report)

    def prepare(self, tensors: Arrays) -> None:
        """Writes the data that is sent.

        Raises:
            InputError: The folder cannot be written.
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
        """Runs perf_analyzer. Blocks.

        Raises:
            EmptyWindowError: It gave up, and may not where it is run again, for longer.
            ServerError: It gave up otherwise, or hung.
        """
        told = _run(self.command, self._load.duration_s * _OVERTIME + _OVERHEAD_S, where=self._load.url)
        report = self._report.read_text(encoding="utf-8") if self._report.exists() else ""
        return read_report(report, told, self._load.url)


def _run(command: Sequence[str], timeout_s: float, *, where: str) -> str:
    """What the command said; it and its children are gone afterwards, whatever happens."""
    # A session of its own: the program in the package starts another one, which a signal to it alone would not reach.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            told, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ServerError(
                f"perf_analyzer did not end within {timeout_s:.0f} s", where=where, hint="does the graph answer at all?"
            ) from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return told
