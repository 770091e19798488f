"""The controller over traces of arrivals, simulated: violations, slices, flapping, and the speed of the simulation.

The reference graph `traffic` is served on four A100-80GB. The traces are scaled so that their busiest second needs 85%
of what these GPUs carry. Beside the planner, the paper's formulation plans for the same core: compute slices without
layouts, 2 x p95, greedy placement.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import a100
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.api.planning import capacity
from jigsaw_triton.api.simulating import simulate
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.evaluation.simulator.accounting import Operation
from jigsaw_triton.evaluation.traces import Trace, read_trace
from jigsaw_triton.planner.domain.problem import Options
from jigsaw_triton.resources import applications_dir

TRACES = Path(__file__).parents[3] / "shared" / "data" / "traces"
GPUS = f"4x{a100.BOARD}"
GRAPH = "traffic"
PEAK = 0.85
"""Share of the GPUs' capacity that the busiest second of a trace needs."""

PAPER = Options(formulation="paper", latency_model="2p95")
GOALS = {"twitter_1s": 0.006, "azure": 0.02}
"""Name of a trace -> largest share of violations."""

FILES = {"twitter_1s": "twitter_1s_one_day.csv", "azure": "azure_llm_code_1s.csv"}
"""Name of a trace -> its file."""

APPLICATION = applications_dir() / "digits"
FORECASTS = (
    ("highest", 60.0),
    ("highest", 300.0),
    ("highest", 900.0),
    ("last", 60.0),
    ("holt", 60.0),
    ("holt", 300.0),
    ("kalman", 60.0),
    ("kalman", 300.0),
)
"""(Forecast, seconds of load that it sees)."""

STEADY_RPS, STEADY_S = 200.0, 3600
"""Constant load of the test for flapping, Poisson in each second."""


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Simulates all traces. A smoke run takes their first minutes."""
    if not a100.TABLE.exists():
        progress("simulated: skipped: the A100 table and the traces are not beside the checkout")
        return []
    return await asyncio.to_thread(lambda: list(_measure(progress, effort)))


def _measure(progress: Progress, effort: Effort) -> Iterator[Figure]:
    graph = a100.reference_graph(GRAPH)
    table = a100.a100_table(graph)
    largest = capacity(
        graph,
        gpus=GPUS,
        driver="emulated",
        profiles=table,
        options=Options(time_limit_s=effort.seconds(20.0, least_s=8.0)),
    ).rps[GRAPH]
    progress(f"simulated: {GPUS} carry {largest:.0f} requests/s of {GRAPH}")

    def run(trace: Trace, options: Options | None = None) -> tuple[Operation, float]:
        began = time.perf_counter()
        found = simulate(graph, trace, gpus=GPUS, driver="emulated", profiles=table, options=options).operation
        return found, trace.seconds / (time.perf_counter() - began)

    for name, file in FILES.items():
        trace = _shortened(read_trace(TRACES / file), effort)
        trace = trace.scaled(PEAK * largest / float(trace.rps.max()))
        progress(f"simulated: {name}, {trace.seconds} s")
        ours, speed = run(trace)
        note = f"{ours.slices.mean():.1f} of 28 slices on average, {len(ours.changes)} changes in {trace.seconds} s"
        share = ours.violation_share
        yield figure(f"controller.{name}.violations", share, "share", note, at_most=GOALS[name])
        paper, _ = run(trace, PAPER)
        note = (
            f"mean slices over those of the paper's formulation with the same core; its violations are "
            f"{paper.violation_share:.4f}, with {len(paper.changes)} changes"
        )
        ratio = float(ours.slices.mean() / paper.slices.mean())
        yield figure(
            f"controller.{name}.slices", ratio, "ratio", note, at_most=0.9, baseline=float(paper.slices.mean())
        )
        if name == "twitter_1s":
            note = "simulated over real time, planning included; fluid between events; one run"
            yield figure("controller.sim_speed", speed, "ratio", note, at_least=2000)
    yield from _forecasts(progress, effort)
    progress("simulated: constant load")
    steady = np.random.default_rng(1).poisson(STEADY_RPS, STEADY_S).astype(np.float64)
    found, _ = run(_shortened(Trace(1.0, steady), effort))
    note = (
        f"changes of the plan in {len(found.slices)} s of Poisson arrivals at {STEADY_RPS:g}/s, without the first 10 s"
    )
    changes = sum(change.at_s > 10 for change in found.changes)
    yield figure("controller.flapping", changes, "changes", note, at_most=0)


def _forecasts(progress: Progress, effort: Effort) -> Iterator[Figure]:
    """Yields the violations of each forecast of the load, on a small application that is simulated quickly."""
    most = capacity(APPLICATION, gpus="2xcpu", driver="emulated").rps["digits"]
    for name, file in FILES.items():
        trace = _shortened(read_trace(TRACES / file), effort)
        trace = trace.scaled(PEAK * most / float(trace.rps.max()))
        for forecast, window_s in FORECASTS[: effort.count(len(FORECASTS))]:
            progress(f"simulated: {name}, forecast {forecast} of {window_s:g} s")
            settings = Settings(forecast=forecast, fall_window_s=window_s)
            found = simulate(APPLICATION, trace, gpus="2xcpu", driver="emulated", settings=settings).operation
            note = f"{found.slices.mean():.2f} of 14 slices on average, {len(found.changes)} changes; digits on 2 GPUs"
            identifier = f"controller.forecast.{name}.{forecast}_{window_s:g}"
            yield figure(identifier, found.violation_share, "share", note)


def _shortened(trace: Trace, effort: Effort) -> Trace:
    seconds = round(effort.seconds(trace.seconds, least_s=120.0)) if effort.rounds == 1 else trace.seconds
    return replace(trace, rps=trace.rps[:seconds])
