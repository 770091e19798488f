"""Traces: arrivals of requests over time, read from CSV files."""

import csv
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.errors import InputError

_TIMES = ("second", "t_start_s", "time_s", "seconds")
"""Names of columns with the start of each interval, in seconds."""

_RATES = ("rps", "mean_rps", "requests")
"""Names of columns with requests a second; `requests` counts them in intervals of one second."""

_HINT = f"name the columns: one of {', '.join(_TIMES)} for the time, and one of {', '.join(_RATES)} for the rate"


@dataclass(frozen=True, slots=True)
class Trace:
    """Mean arrival rates in intervals of equal length.

    Attributes:
        step_s: Length of an interval in seconds.
        rps: Requests a second in each interval, an array of shape [intervals].
    """

    step_s: float
    rps: NDArray[np.float64]

    @property
    def seconds(self) -> int:
        """Length of the trace in whole seconds."""
        return int(self.step_s * len(self.rps))

    def scaled(self, factor: float) -> "Trace":
        """Returns a copy with all rates multiplied by a factor."""
        return Trace(self.step_s, self.rps * factor)

    def counts(self, seed: int) -> NDArray[np.float64]:
        """Returns the arrivals in each second, an array of shape [seconds].

        Intervals of one second are taken as they are. In longer ones arrivals are drawn from a Poisson distribution.

        Args:
            seed: Seed of the random numbers.
        """
        return self.rps if self.step_s == 1 else self.faster(1.0).drawn(seed).rps

    def faster(self, factor: float) -> "Trace":
        """Returns a trace that changes faster, at the same rates: their means in each second.

        Args:
            factor: Ratio of this trace's length to the new one's, which is cut to whole seconds.
        """
        ends_s = np.arange(int(self.seconds / factor) + 1) * factor
        total = np.concatenate(([0.0], np.cumsum(self.rps * self.step_s)))
        reached = np.interp(ends_s, np.arange(len(total)) * self.step_s, total)
        return Trace(1.0, np.maximum(0.0, np.diff(reached)) / factor)

    def drawn(self, seed: int) -> "Trace":
        """Returns a trace whose rates are drawn from Poisson distributions around these, one for each interval.

        Args:
            seed: Seed of the random numbers.
        """
        return Trace(self.step_s, np.random.default_rng(seed).poisson(self.rps).astype(np.float64))


def read_trace(path: Path) -> Trace:
    """Reads a trace from a CSV file with a header.

    Args:
        path: File with a column of times, which increase by whole seconds in equal steps, and a column of rates.

    Raises:
        InputError: The file cannot be read, or is not such a trace.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"the trace cannot be read ({reason})", where=str(path), hint="give a CSV file") from error
    columns = rows[0].keys() if rows else ()
    time = next((name for name in _TIMES if name in columns), None)
    rate = next((name for name in _RATES if name in columns), None)
    if time is None or rate is None or len(rows) < 2:
        raise InputError("the file is no trace of at least two intervals", where=str(path), hint=_HINT)
    times = _numbers(rows, time, path)
    step_s = times[1] - times[0]
    if step_s < 1 or step_s != round(step_s):
        raise InputError("the trace has steps that are not whole seconds", where=f"{path}:3", hint=_HINT)
    for line, (before, now) in enumerate(pairwise(times), 3):
        if abs(now - before - step_s) > 1e-6:
            message = f"this interval is {now - before:g} s long, and the first one {step_s:g} s"
            raise InputError(message, where=f"{path}:{line}", hint="use intervals of equal length")
    return Trace(step_s, np.array(_numbers(rows, rate, path)))


def _numbers(rows: list[dict[str, str]], column: str, path: Path) -> list[float]:
    found = []
    for line, row in enumerate(rows, 2):
        try:
            number = float(row[column])
        except (TypeError, ValueError):
            number = -1.0
        if not 0 <= number < 1e12:
            message = f"{column} is {row[column]!r}, which is not a number of 0 or more"
            raise InputError(message, where=f"{path}:{line}", hint="correct or remove the line")
        found.append(number)
    return found
