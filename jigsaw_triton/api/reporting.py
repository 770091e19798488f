"""Destination of notes and warnings, and the form in which messages name an option."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from jigsaw_triton.packages import Package, Progress

_log = logging.getLogger("jigsaw_triton")
_EVERY_MIB = 10


class Reporter(Protocol):
    """Receives notes and warnings beside the result."""

    def note(self, text: str) -> None:
        """Reports progress or a minor fact."""

    def warn(self, text: str) -> None:
        """Reports something that the user should not overlook."""


class LogReporter:
    """Reports to the logger `jigsaw_triton`: notes at level INFO, warnings at level WARNING."""

    def note(self, text: str) -> None:
        """Logs progress or a minor fact."""
        _log.info("%s", text)

    def warn(self, text: str) -> None:
        """Logs something that the user should not overlook."""
        _log.warning("%s", text)


LOG = LogReporter()


def download_progress(report: Callable[[str], None]) -> Progress:
    """Returns a callback that reports a download in words, once every ten MiB.

    Args:
        report: Function that receives each sentence.
    """
    reported = -1

    def progress(package: Package, mib: float) -> None:
        nonlocal reported
        if int(mib) // _EVERY_MIB > reported:
            reported = int(mib) // _EVERY_MIB
            report(f"downloading {package.purpose} ({package.name} {package.version}): {mib:.0f} MiB")

    return progress


@dataclass(frozen=True, slots=True)
class Wording:
    """Form in which messages name an option: `--gpus 2xcpu` on the command line, `gpus='2xcpu'` in Python.

    Attributes:
        flags: True for the command line.
    """

    flags: bool = False

    def name(self, option: str) -> str:
        """Returns the name of an option."""
        return f"--{option}" if self.flags else option

    def setting(self, option: str, value: str) -> str:
        """Returns an option with a value."""
        return f"--{option} {value}" if self.flags else f"{option}={value!r}"

    def demand(self, graphs: Iterable[str]) -> str:
        """Returns the demand option with a placeholder for each graph."""
        if self.flags:
            return f"--demand {','.join(f'{graph}=RPS' for graph in graphs)}"
        return f"demand={{{', '.join(f'{graph!r}: RPS' for graph in graphs)}}}"


PYTHON = Wording()
COMMAND_LINE = Wording(flags=True)
