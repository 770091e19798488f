"""Progress and result of `profile`, in words and as a document."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from jigsaw_triton.api.files import shown_path
from jigsaw_triton.cli.io.output import Output, figures
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.evaluation.profiling.interference import Interference
from jigsaw_triton.evaluation.profiling.measure import Failure, Measurement
from jigsaw_triton.evaluation.profiling.sweep import Outcome, Step
from jigsaw_triton.profiles.filling import QUANTILE
from jigsaw_triton.profiles.fit import LEAST_ROWS, LatencyFit
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow

_FULL_BATCHES = 0.9
"""Least share of executions with a full batch. Below it the latencies are mostly those of smaller batches."""

_LATENCIES = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms")
_MEMORY = {"nvml": "of the slice, by NVML", "pss": "of the processes, as proportional set size (PSS)"}

Begin = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class Result:
    """Result of a sweep.

    Attributes:
        file: The profiles.csv.
        report: The report about it; None if there is none.
        failures_file: File with the configurations that failed.
        configurations: Number of configurations of the sweep.
        rows: Rows of those that have one, measured and others.
        failed: Reason by configuration that failed, in this run or in an earlier one.
        outcome: Outcome of this run.
        fits: Fits by GPU model.
        machine: Cores and load of the machine.
        again: True if this run measures what earlier runs have.
    """

    file: Path
    report: Path | None
    failures_file: Path
    configurations: int
    rows: Sequence[ProfileRow]
    failed: Mapping[ProfileKey, str]
    outcome: Outcome
    fits: Mapping[str, LatencyFit]
    machine: Mapping[str, Any]
    again: bool = False

    @property
    def measured(self) -> Mapping[ProfileKey, Measurement]:
        """Measurements of this run by configuration."""
        return self.outcome.measured

    @property
    def kept(self) -> int:
        """Number of measured rows of earlier runs."""
        return sum(row.source == "measured" and row.key not in self.measured for row in self.rows)

    @property
    def fitted(self) -> int:
        """Number of fitted rows."""
        return sum(row.source == "fitted" for row in self.rows)


@contextmanager
def sweep_progress(out: Output) -> Iterator[Begin]:
    """Yields a function to call before each measurement. It moves a progress bar on a terminal, else prints a line."""
    if not sys.stderr.isatty():
        yield lambda step: out.note(
            f"{step.number} of {step.total}{_left(step)}: measuring {step.key.words}",
        )
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=None, left="")
        yield lambda step: progress.update(
            bar,
            description=step.key.words,
            completed=step.number - 1,
            total=step.total,
            left=_left(step).removeprefix(", "),
        )


def _left(step: Step) -> str:
    if step.left_s is None:
        return ""
    minutes, seconds = divmod(round(step.left_s), 60)
    return f", about {minutes}:{seconds:02d} left"


def warn_of_failure(out: Output, failure: Failure) -> None:
    """Warns of a configuration that failed, with the end of the server's log."""
    out.warn(f"{failure.key.words} failed: {failure.reason}")
    if failure.log:
        out.note(failure.log)


def warn_of_doubts(out: Output, measured: Mapping[ProfileKey, Measurement]) -> None:
    """Warns of measurements with smaller batches, and notes how many ended without confidence."""
    for key, measurement in measured.items():
        if measurement.full < _FULL_BATCHES:
            out.warn(f"{key.words}: only {measurement.full:.0%} of the executions had a full batch")
    if doubtful := sum(not measurement.confident for measurement in measured.values()):
        out.note(
            f"{doubtful} of {len(measured)} measurements reached the end of their time (--seconds) before their "
            "confidence: the column ± has the half width of the 95% interval of p95"
        )


def print_result(out: Output, result: Result) -> None:
    """Prints the result of a sweep: the measured rows as a table, or everything as JSON."""
    views = [_table(result), *_interference_views(result.outcome.interference)]
    out.result(_document(result), *views, *_summary(result))


def _table(result: Result) -> Table:
    header = ("gpu", "task", "variant", "slice", "inst", "batch", "p50 ms", "p95 ms", "±", "p99 ms", "items/s", "MiB")
    return Table.of(
        header,
        [
            (
                *(row.key.gpu, row.key.task, row.key.variant, row.key.slice, row.key.instances, row.key.batch),
                *(figures(getattr(row, name)) for name in _LATENCIES[:2]),
                _half_width(result.measured.get(row.key)),
                figures(row.latency_p99_ms),
                figures(row.throughput_rps),
                figures(row.memory_mib),
            )
            for row in result.rows
            if row.source == "measured"
        ],
    )


def _interference_views(found: Sequence[Interference]) -> Iterator[Table]:
    """Yields a table of the measurements with neighbours, if there are any."""
    if not found:
        return
    header = (
        "configuration",
        "neighbours",
        "p95 ms",
        "with busy ones",
        "factor",
        "items/s",
        "with busy ones",
        "factor",
    )
    rows = [
        (
            *(one.key.words, one.neighbours),
            *(figures(side.latency_p95_ms) for side in (one.idle, one.busy)),
            figures(one.latency),
            *(figures(side.throughput_rps) for side in (one.idle, one.busy)),
            figures(one.throughput),
        )
        for one in found
    ]
    yield Table.of(header, rows)


def _half_width(measurement: Measurement | None) -> str:
    if measurement is None:
        return ""
    return "?" if measurement.half_widths is None else f"{measurement.half_widths.latency_p95:.0%}"


def _summary(result: Result) -> Iterator[str]:
    if methods := sorted({measurement.memory for measurement in result.measured.values()}):
        yield f"memory: {'; '.join(_MEMORY[method] for method in methods)}"
    for key, reason in result.failed.items():
        when = "failed" if key in result.outcome.failed else "failed in an earlier run and was not tried again"
        yield f"{key.words} {when}: {reason}"
    if result.failed:
        yield f"{shown_path(result.failures_file)} lists what failed; --again tries it again"
    if errors := [one.median_error for fit in result.fits.values() for one in fit.variants.values()]:
        yield (
            f"{result.fitted} configurations fitted at the {QUANTILE:.0%} quantile; median error of the variants in "
            f"cross-validation {min(errors):.1%} to {max(errors):.1%}"
        )
    if lacking := result.configurations - len(result.rows):
        yield (
            f"{lacking} configurations have no row: they failed, or do not fit into the slice, or their variant has "
            f"fewer than the {LEAST_ROWS} measured ones that a fit needs"
        )
    parts = [f"{len(result.measured)} configurations measured"]
    if result.kept:
        hint = "" if result.again else " (--again measures them again)"
        parts.append(f"{result.kept} kept from earlier runs{hint}")
    if not result.outcome.complete:
        parts.append("the budget is spent: repeat the command to measure more")
    files = " and ".join(shown_path(path) for path in (result.file, result.report) if path is not None)
    yield f"{', '.join(parts)}; {files}"


def _document(result: Result) -> dict[str, Any]:
    return {
        "file": str(result.file),
        "report": None if result.report is None else str(result.report),
        "machine": dict(result.machine),
        "complete": result.outcome.complete,
        "configurations": result.configurations,
        "measured": len(result.measured),
        "kept": result.kept,
        "fitted": result.fitted,
        "failed": [
            {**asdict(key), "reason": reason, "in_this_run": key in result.outcome.failed}
            for key, reason in result.failed.items()
        ],
        "fits": [
            {"gpu": gpu, "task": task, "variant": variant, "rows": one.rows}
            | {"median_error": one.median_error, "p95_error": one.p95_error}
            for gpu, fit in result.fits.items()
            for (task, variant), one in fit.variants.items()
        ],
        "interference": [
            {**asdict(one.key), "neighbours": one.neighbours, "latency_p95_factor": one.latency}
            | {"throughput_factor": one.throughput, "idle": asdict(one.idle), "busy": asdict(one.busy)}
            for one in result.outcome.interference
        ],
        "rows": [_row_document(row, result.measured.get(row.key)) for row in result.rows],
    }


def _row_document(row: ProfileRow, measurement: Measurement | None) -> dict[str, Any]:
    document = {**asdict(row.key), **asdict(row)}
    del document["key"]
    if measurement is None:
        return document
    widths = measurement.half_widths
    return document | {
        "batches": measurement.batches,
        "full": measurement.full,
        "seconds": round(measurement.seconds, 3),
        "confident": measurement.confident,
        "half_widths": asdict(widths) if widths is not None else None,
        "memory_method": measurement.memory,
    }
