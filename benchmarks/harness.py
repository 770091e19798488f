"""What all benchmarks have in common: figures, the report, the command line."""

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
"""A benchmark that is not done by then has failed."""

LIMITS_S = {"dataplane": 3600.0}
"""Of benchmarks that take longer."""

Tell = Callable[[str], None]
"""Says how far a benchmark is."""


def limit_s(name: str) -> float:
    """Seconds that a benchmark has."""
    return LIMITS_S.get(name, LIMIT_S)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        id: `<benchmark>.<what>.<at what>`.
        value: Measured in this run.
        unit: Of the value; `ratio` and `share` have none.
        goal: `>= 0.85`; None where there is none.
        met: Whether the value reaches the goal; None where there is none.
        baseline: What it is compared with, measured in the same run; the note says what and in which unit.
        note: How it was measured, and the spread.
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
    """A figure, rounded to what is worth reading; the goal is judged before that.

    Args:
        name: Its id.
        value: Measured.
        unit: Of the value.
        note: How it was measured.
        at_least: The goal, where more is better.
        at_most: The goal, where less is better.
        baseline: See `Figure`.
    """
    goal, met = None, None
    if at_least is not None:
        goal, met = f">= {at_least:g}", value >= at_least
    elif at_most is not None:
        goal, met = f"<= {at_most:g}", value <= at_most
    return Figure(name, _short(value), unit, goal, met, None if baseline is None else _short(baseline), note)


def _short(value: float) -> float:
    return float(f"{value:.3g}") if abs(value) < 1000 or math.isinf(value) else round(value)


def spread(values: Sequence[float]) -> str:
    """Of the single measurements, for a note."""
    return f"{min(values):.3g} to {max(values):.3g}"


def machine() -> dict[str, Any]:
    """What it was measured on, and how busy that was at the time."""
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
    """Figures as a table in Markdown."""
    lines = ["| figure | value | unit | goal | met | baseline | note |", "|---|---|---|---|---|---|---|"]
    for row in figures:
        met = {True: "yes", False: "no", None: ""}[row["met"]]
        baseline = "" if row["baseline"] is None else f"{row['baseline']:g}"
        cells = (row["id"], f"{row['value']:g}", row["unit"], row["goal"] or "", met, baseline, row["note"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@contextmanager
def alarm() -> Iterator[None]:
    """Raises TimeoutError inside the `with` block when a benchmark's time is up. For code without an event loop."""

    def expired(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"not done within {LIMIT_S:g} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(round(LIMIT_S))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main(name: str, measure: Callable[[Tell], Sequence[Figure]]) -> int:
    """The command line of one benchmark: measures, and prints a table or JSON; the exit code.

    Args:
        name: Of the benchmark.
        measure: Does it.
    """
    return report(name, measure, parser(name).parse_args().form)


def parser(name: str) -> argparse.ArgumentParser:
    """What the command lines of all benchmarks have in common."""
    found = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=sys.modules["__main__"].__doc__)
    found.add_argument("-o", dest="form", choices=("table", "json"), default="table", help="what to print")
    return found


def report(name: str, measure: Callable[[Tell], Sequence[Figure]], form: str) -> int:
    """Measures, and prints the figures; the exit code.

    Args:
        name: Of the benchmark.
        measure: Does it.
        form: `table` or `json`.
    """
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"{name} {time.monotonic() - began:4.0f} s  {text}", file=sys.stderr, flush=True)

    measured_on = machine()
    try:
        figures = [asdict(found) for found in measure(tell)]
    except (KeyboardInterrupt, asyncio.CancelledError):
        tell("broken off")
        return 130
    except (JigsawError, TimeoutError) as error:
        tell(f"failed: {error}")
        return 1
    tell("done")
    if form == "json":
        print(json.dumps({"name": name, "machine": measured_on, "figures": figures}, indent=2))
    else:
        print(table(figures))
    return 0
