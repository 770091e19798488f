"""Violations on real tritonservers, compared with those that the simulator expects of the same load.

A graph with fan-out is served by emulated models on four A100-80GB: 28 slices, with one worker in each that is used.
The load follows ten ordinary minutes of a day of Twitter at real speed, and ten minutes in which it rises to five times
as much within two. Batches take a tenth of the SLO and more, so that few requests a second keep
many workers busy, and the noise of a machine that all of them share is small beside the SLO.
"""

import asyncio
import json
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks import system
from benchmarks.controller.simulated import TRACES
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.api.planning import capacity
from jigsaw_triton.api.rehearsing import Rehearsed, rehearse
from jigsaw_triton.evaluation.traces import Trace, read_trace
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable

FILE = "twitter_1s_one_day.csv"
BOARD = "A100-80GB"
GPUS = f"4x{BOARD}"
PEAK = 0.85
"""Share of the GPUs' capacity that the busiest second of the load needs."""

WINDOWS = {"steady": 0, "burst": 55500}
"""Name of a load -> second of the trace at which it begins."""

SECONDS = 600
GOAL_POINTS = 0.3
"""Largest difference in percentage points."""

SMOKE_SHARE, SMOKE_SECONDS = 0.1, 5
"""Share of the rates, and seconds, in a smoke run."""

SLO_MS = 2000
CROPS = 2.0
"""Expected rows that the first task yields."""

TIMES_MS = {"detect": {1: 150.0, 2: 200.0, 4: 300.0}, "classify": {1: 100.0, 4: 250.0, 8: 400.0}}
"""Task -> batch size -> median milliseconds on a slice of one seventh."""

P95, P99 = 1.2, 1.4
"""Percentiles of the times, as multiples of the median."""


def graph(folder: Path) -> TaskGraph:
    """Returns a graph that detects crops and classifies each of them."""
    tensor = {"dtype": "FP32", "shape": [16]}
    document = {
        "apiVersion": "jigsaw-triton/v1",
        "kind": "TaskGraph",
        "metadata": {"name": "crops"},
        "spec": {
            "slo": {"latency_ms": SLO_MS},
            "inputs": {"X": tensor},
            "outputs": {"Y": "classify.Y"},
            "tasks": {
                "detect": {
                    "inputs": {"X": "inputs.X"},
                    "outputs": {"CROPS": {"dtype": "FP32", "shape": [-1, 16]}},
                    "variants": [{"name": "only", "accuracy": 1.0, "template": "emulated", "yields": {"CROPS": CROPS}}],
                },
                "classify": {
                    "for_each": "detect.CROPS",
                    "inputs": {"X": "detect.CROPS"},
                    "outputs": {"Y": tensor},
                    "variants": [{"name": "only", "accuracy": 1.0, "template": "emulated"}],
                },
            },
        },
    }
    return system.read_graph(folder, json.dumps(document))


def profiles() -> ProfileTable:
    """Returns made-up profiles of one instance in a slice of one seventh."""
    return ProfileTable(
        ProfileRow(
            ProfileKey(BOARD, task, "only", "1g", 1, batch), ms, P95 * ms, P99 * ms, 950 * batch / ms, 60.0, "assumed"
        )
        for task, times in TIMES_MS.items()
        for batch, ms in times.items()
    )


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Rehearses both loads, one after the other. A smoke run takes some seconds of the first one."""
    if not (TRACES / FILE).exists():
        progress("rehearsed: skipped: the traces are not beside the checkout")
        return []
    day, found = read_trace(TRACES / FILE), []
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as folder:
        crops = graph(Path(folder))
        most = capacity(crops, gpus=GPUS, driver="emulated", profiles=profiles()).rps[crops.name]
        for name, start in list(WINDOWS.items())[: effort.rounds]:
            window = replace(day, rps=day.rps[start : start + SECONDS])
            trace = window.scaled(PEAK * most / float(window.rps.max()))
            if effort.rounds == 1:
                trace = replace(trace, rps=SMOKE_SHARE * trace.rps[:SMOKE_SECONDS])
            found += list(_figures(name, await _rehearsed(crops, trace, progress)))
    return found


async def _rehearsed(crops: TaskGraph, trace: Trace, progress: Progress) -> Rehearsed:
    """Runs a rehearsal in a thread. If this coroutine is cancelled, the rehearsal ends at its next report."""
    cancelled = threading.Event()

    def report(text: str) -> None:
        if cancelled.is_set():
            raise KeyboardInterrupt
        progress(f"rehearsed: {text}")

    try:
        return await asyncio.to_thread(rehearse, crops, trace, gpus=GPUS, profiles=profiles(), progress=report)
    except asyncio.CancelledError:
        cancelled.set()
        raise


def _figures(name: str, found: Rehearsed) -> Iterator[Figure]:
    real, simulated = found.operation, found.simulated.operation
    totals = found.requests["crops"].totals()
    note = (
        f"violations rehearsed minus simulated, of {totals['sent']} requests in {len(real.slices)} s: {totals['late']} "
        f"late, {totals['refused']} refused, {totals['failed']} failed, {simulated.violation_share:.2%} simulated; up "
        f"to {found.workers} workers; {len(real.changes)} changes, {len(simulated.changes)} simulated; load of the "
        f"host {found.host_load:.1f} for each processor, client lag p99 {found.lag_ms:.0f} ms"
    )
    yield figure(f"controller.rehearse_gap.{name}", 100 * found.difference, "points", note, at_most=GOAL_POINTS)
    note = "mean slices rehearsed over simulated"
    yield figure(
        f"controller.rehearse_gap.{name}.slices",
        float(real.slices.mean() / simulated.slices.mean()),
        "ratio",
        note,
        baseline=float(simulated.slices.mean()),
    )
