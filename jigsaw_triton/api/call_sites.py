"""Positions of the calls with which a user's code builds a document, for the errors about its entries."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from jigsaw_triton.errors import Diagnostic
from jigsaw_triton.spec.source import Path as Entry
from jigsaw_triton.spec.source import SourceMap

_PACKAGE = str(Path(__file__).resolve().parents[1]) + os.sep


@dataclass(frozen=True, slots=True)
class CallSites(SourceMap):
    """Source map of a document that Python code built: each entry has the file and line of the call that added it.

    Attributes:
        files: Path of each entry in the document -> file of the call.
    """

    files: Mapping[Entry, str] = field(default_factory=dict)

    def diagnostic(self, path: Entry, message: str, hint: str = "") -> Diagnostic:
        """Returns a mistake at the call that added this entry."""
        known = next(path[:end] for end in range(len(path), -1, -1) if path[:end] in self.files)
        return Diagnostic(self.files[known], self.line(path), message, hint)


def position() -> tuple[str, int]:
    """Returns file and line of the nearest caller outside this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("<unknown>", 0)


def call_site() -> str:
    """Returns file and line of the nearest caller outside this package as one text: `file:line`."""
    file, line = position()
    return f"{file}:{line}"
