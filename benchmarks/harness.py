"""Common parts of all benchmarks: figures, the report, the command line."""

import argparse
import asyncio
import json
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from jigsaw_triton.errors import JigsawError

LIMIT_S = 280.0
"""Seconds after which a benchmark has failed."""

LIMITS_S = {
    "ablation": 1800.0,
    "dataplane": 3600.0,
    "controller": 18000.0,
    "cluster": 3600.0,
    "profiles": 3600.0,
    "trials": 3600.0,
}
"""Time limits of benchmarks that take longer, in seconds."""

Progress = Callable[[str], None]
"""Function that prints a line about the progress of a benchmark."""


def limit_s(name: str) -> float:
    """Returns the time limit of a benchmark, in seconds."""
    return LIMITS_S.get(name, LIMIT_S)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        id: Identifier: `<part>.<quantity>.<condition>`.
        value: Value measured in this run.
        unit: Unit of the value; `ratio` and `share` stand for dimensionless values.
        goal: Goal such as `>= 0.85`; None if there is none.
        met: True if the value reaches the goal; None if there is no goal.
        baseline: Value of the baseline, measured in the same run; the note names the baseline and its unit.
        note: Method of the measurement, and spread of the values.
    """

    id: str
    value: float
    unit: str
    goal: str | None = None
    met: bool | None = None
    baseline: float | None = None
    note: str = ""


def figure(
    name: str,
    value: float,
    unit: str,
    note: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    baseline: float | None = None,
) -> Figure:
    """Makes a figure. The value is compared with the goal first, and then rounded to three digits.

    Args:
        name: Identifier of the figure.
        value: Measured value.
        unit: Unit of the value.
        note: Method of the measurement.
        at_least: Goal, if more is better, or lower end of a range.
        at_most: Goal, if less is better, or upper end of a range.
        baseline: Value of the baseline; see `Figure`.
    """
    goal, met = None, None
    if at_least is not None and at_most is not None:
        goal, met = f"{at_least:g} to {at_most:g}", at_least <= value <= at_most
    elif at_least is not None:
        goal, met = f">= {at_least:g}", value >= at_least
    elif at_most is not None:
        goal, met = f"<= {at_most:g}", value <= at_most
    return Figure(name, _short(value), unit, goal, met, None if baseline is None else _short(baseline), note)


def _short(value: float) -> float:
    return float(f"{value:.3g}") if abs(value) < 1000 or math.isinf(value) else round(value)


def spread(values: Sequence[float]) -> str:
    """Returns the range of the single measurements, for a note."""
    return f"{min(values):.3g} to {max(values):.3g}"


def machine() -> dict[str, Any]:
    """Describes this machine and its present load."""
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpus[0].partition(":")[2].strip() if cpus else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": memory // 2**20,
        "system": f"Linux {platform.release()}",
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def table(figures: Sequence[dict[str, Any]]) -> str:
    """Returns figures as a Markdown table."""
    lines = ["| figure | value | unit | goal | met | baseline | note |", "|---|---|---|---|---|---|---|"]
    for row in figures:
        met = {True: "yes", False: "no", None: ""}[row["met"]]
        baseline = "" if row["baseline"] is None else f"{row['baseline']:g}"
        cells = (row["id"], f"{row['value']:g}", row["unit"], row["goal"] or "", met, baseline, row["note"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@contextmanager
def alarm(limit_s: float = LIMIT_S) -> Iterator[None]:
    """Raises TimeoutError inside the `with` block when the time limit is reached. For code without an event loop."""

    def expired(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"not done within {limit_s:g} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(round(limit_s))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main(name: str, measure: Callable[[Progress], Sequence[Figure]]) -> int:
    """Runs the command line of one benchmark: measures, and prints a table or JSON. Returns the exit code.

    Args:
        name: Name of the benchmark.
        measure: Function that measures the figures.
    """
    return report(name, measure, parser(name).parse_args().form)


def parser(name: str) -> argparse.ArgumentParser:
    """Returns a parser with the options that all benchmarks have."""
    found = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=sys.modules["__main__"].__doc__)
    found.add_argument("-o", dest="form", choices=("table", "json"), default="table", help="format of the output")
    return found


def report(name: str, measure: Callable[[Progress], Sequence[Figure]], form: str) -> int:
    """Measures, and prints the figures. Returns the exit code.

    Args:
        name: Name of the benchmark.
        measure: Function that measures the figures.
        form: Format of the output, `table` or `json`.
    """
    began = time.monotonic()

    def progress(text: str) -> None:
        print(f"{name} {time.monotonic() - began:4.0f} s  {text}", file=sys.stderr, flush=True)

    measured_on = machine()
    try:
        figures = [asdict(found) for found in measure(progress)]
    except (KeyboardInterrupt, asyncio.CancelledError):
        progress("interrupted")
        return 130
    except (JigsawError, TimeoutError) as error:
        progress(f"failed: {error}")
        return 1
    progress("done")
    if form == "json":
        print(json.dumps({"name": name, "machine": measured_on, "figures": figures}, indent=2))
    else:
        print(table(figures))
    return 0
