"""The last hour of the load, one line of JSON a second, in two files that take turns."""

import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jigsaw_triton.controller.core.load_sample import LoadSample

KEPT_S = 3600
"""Seconds of load that are kept, of which a file has at most as many lines."""

_RECENT = 60
"""Number of samples that are kept in memory, for readers that follow them."""

_DIGITS = 4
"""Significant digits of a figure in a sample."""


class LoadHistory:
    """Writer of the history. It adds samples without waiting for the disk.

    Args:
        path: File of the latest samples; the earlier ones are beside it, in `<name>.1`. None to keep only the recent
            ones, in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lines: int | None = None
        self._pending: list[str] = []
        self._recent: deque[dict[str, Any]] = deque(maxlen=_RECENT)

    def add(self, sample: LoadSample) -> None:
        """Adds a sample, which `flush` writes."""
        entry = _entry(sample)
        self._recent.append(entry)
        if self._path is not None:
            self._pending.append(json.dumps(entry, separators=(",", ":")) + "\n")

    def after(self, t: float) -> list[dict[str, Any]]:
        """Returns the recent samples later than a time, oldest first."""
        return [entry for entry in self._recent if entry["t"] > t]

    def flush(self) -> None:
        """Writes the samples that were added. Blocks. If the disk is full, they are lost without an error."""
        lines, self._pending = self._pending, []
        if self._path is None or not lines:
            return
        with suppress(OSError):
            if self._lines is None:
                self._lines = sum(1 for _ in _lines(self._path))
            if self._lines >= KEPT_S:
                self._path.replace(_earlier(self._path))
                self._lines = 0
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, "".join(lines).encode())
            finally:
                os.close(descriptor)
            self._lines += len(lines)


def read_history(path: Path, since_s: float) -> list[dict[str, Any]]:
    """Reads the samples later than a time, oldest first. Skips lines that were not written to their end.

    Args:
        path: Path that `LoadHistory` has.
        since_s: Time in seconds since 1970.
    """
    found = []
    for line in (*_lines(_earlier(path)), *_lines(path)):
        with suppress(ValueError, TypeError, KeyError):
            entry = json.loads(line)
            if entry["t"] > since_s:
                found.append(entry)
    return found


def _earlier(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def _lines(path: Path) -> Iterator[str]:
    with suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
        yield from file


def _entry(sample: LoadSample) -> dict[str, Any]:
    graphs = {name: _rounded(asdict(graph)) for name, graph in sample.graphs.items()}
    return {"t": round(sample.t, 3), "slices": sample.slices, "graphs": graphs}


def _rounded(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else float(f"{value:.{_DIGITS}g}") for name, value in figures.items()}
