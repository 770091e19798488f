"""The controller over traces of seconds, simulated: violations, slices, flapping, and the speed of the simulation.

The reference graph `traffic` is served on four A100-80GB. The traces are scaled so that their busiest second needs 85%
of what these GPUs carry. Beside this controller runs the paper's.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks import a100
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.api.planning import capacity
from jigsaw_triton.api.replaying import replay
from jigsaw_triton.api.simulating import simulate
from jigsaw_triton.controller.core.forecast import ForecastSettings
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.evaluation.replay import OURS, Contender
from jigsaw_triton.evaluation.simulator.accounting import Operation
from jigsaw_triton.evaluation.traces import Trace, read_trace
from jigsaw_triton.planner.domain.problem import Options
from jigsaw_triton.resources import applications_dir

TRACES = Path(__file__).parents[3] / "shared" / "data" / "traces"
GPUS, SMOKE_GPUS = f"4x{a100.BOARD}", f"2x{a100.BOARD}"
"""GPUs of the traces, and of a smoke run: plans of fewer GPUs take less time."""

GRAPH = "traffic"
PEAK = 0.85
"""Share of the GPUs' capacity that the busiest second of a trace needs."""

PAPER_MODE = Contender("paper")
"""The paper's controller with all features."""

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
    ("seasonal", 60.0),
)
"""(Forecast, seconds of load that it sees)."""

FORECASTS_S = 8 * 3600
"""Seconds of a trace that are simulated with each forecast, at most."""

DAYS, DAYS_FORECASTS = 2, (("highest", 60.0), ("kalman", 60.0), ("seasonal", 60.0))
"""Days of Twitter, with the means of five minutes, and forecasts that are compared on them. The seasonal one learns on
the first day."""

STEADY_RPS, STEADY_S = 200.0, 3600
"""Constant load of the test for flapping, Poisson in each second."""

SMOKE_S = 60
"""Seconds of each trace in a smoke run, at least one of its intervals."""


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Simulates all traces. A smoke run takes their first minute."""
    if not a100.TABLE.exists():
        progress("simulated: skipped: the A100 table and the traces are not beside the checkout")
        return []
    return await asyncio.to_thread(lambda: list(_measure(progress, effort)))


async def measure_forecasts(progress: Progress, effort: Effort) -> list[Figure]:
    """Simulates all traces with each forecast of the load, on a small application that is simulated quickly."""
    if not TRACES.exists():
        progress("forecasts: skipped: the traces are not beside the checkout")
        return []
    return await asyncio.to_thread(lambda: list(_forecasts(progress, effort)))


def gpus(effort: Effort) -> str:
    """Returns the GPUs that serve."""
    return GPUS if effort.time_share == 1 else SMOKE_GPUS


def largest_rps(progress: Progress, effort: Effort) -> float:
    """Returns the largest demand that the GPUs carry, in requests a second."""
    # On a busy machine a shorter search ends at a lower demand, and so at another scale of the trace.
    most = _largest_rps(gpus(effort), effort.seconds(120.0, least_s=4.0))
    progress(f"simulated: {gpus(effort)} carry {most:.0f} requests/s of {GRAPH}")
    return most


@cache
def _largest_rps(served_by: str, time_limit_s: float) -> float:
    graph, options = a100.reference_graph(GRAPH), Options(time_limit_s=time_limit_s)
    table = a100.a100_table(graph)
    return capacity(graph, gpus=served_by, driver="emulated", profiles=table, options=options).rps[GRAPH]


def _measure(progress: Progress, effort: Effort) -> Iterator[Figure]:
    graph = a100.reference_graph(GRAPH)
    table = a100.a100_table(graph)
    largest = largest_rps(progress, effort)

    def run(trace: Trace, contender: Contender) -> Operation:
        (found,) = replay(
            graph, trace, contenders=(contender,), scale=1.0, gpus=gpus(effort), driver="emulated", profiles=table
        ).systems
        assert found.operation is not None
        return found.operation

    for name, file in FILES.items():
        trace = _shortened(read_trace(TRACES / file), effort)
        trace = trace.scaled(PEAK * largest / float(trace.rps.max()))
        progress(f"simulated: {name}, {trace.seconds} s")
        ours, paper = (run(trace, contender) for contender in (OURS, PAPER_MODE))
        note = f"{ours.slices.mean():.1f} of 28 slices on average, {len(ours.changes)} changes in {trace.seconds} s"
        share = ours.violation_share
        yield figure(f"controller.{name}.violations", share, "share", note, at_most=GOALS[name])
        note = (
            f"mean slices over those of the paper's controller; its violations are {paper.violation_share:.4f}, with "
            f"{len(paper.changes)} changes"
        )
        ratio = float(ours.slices.mean() / paper.slices.mean())
        yield figure(
            f"controller.{name}.slices", ratio, "ratio", note, at_most=0.9, baseline=float(paper.slices.mean())
        )
    progress("simulated: constant load")
    steady = np.random.default_rng(1).poisson(STEADY_RPS, STEADY_S).astype(np.float64)
    found = run(_shortened(Trace(1.0, steady), effort), OURS)
    note = (
        f"changes of the plan in {len(found.slices)} s of Poisson arrivals at {STEADY_RPS:g}/s, without the first 30 s"
    )
    changes = sum(change.at_s > 30 for change in found.changes)
    yield figure("controller.flapping", changes, "changes", note, at_most=0)


def _forecasts(progress: Progress, effort: Effort) -> Iterator[Figure]:
    most = capacity(APPLICATION, gpus="2xcpu", driver="emulated").rps["digits"]

    def run(
        name: str, trace: Trace, chosen: ForecastSettings, settings: Settings | None = None, kind: str = ""
    ) -> Figure:
        forecast = f"{chosen.name}_{chosen.window_s:g}{kind}"
        progress(f"forecasts: {name}, {forecast}")
        scaled = trace.scaled(PEAK * most / float(trace.rps.max()))
        found = simulate(
            APPLICATION,
            scaled,
            gpus="2xcpu",
            driver="emulated",
            forecast=chosen.name,
            window_s=chosen.window_s,
            settings=settings,
        ).operation
        note = (
            f"{found.slices.mean():.2f} of 14 slices on average, {len(found.changes)} changes in {trace.seconds} s; "
            "digits on 2 GPUs"
        )
        return figure(f"controller.forecast.{name}.{forecast}", found.violation_share, "share", note)

    for name, file in FILES.items():
        read = read_trace(TRACES / file)
        trace = _shortened(replace(read, rps=read.rps[:FORECASTS_S]), effort)
        for forecast, window_s in FORECASTS[: effort.count(len(FORECASTS))]:
            yield run(name, trace, ForecastSettings(forecast, window_s))
        yield run(name, trace, ForecastSettings(), Settings(burst_share=1.0), "_without_reserve")
    read = read_trace(TRACES / "twitter_5min.csv")
    means = read.rps[read.rps > 0][: DAYS * 86400 // round(read.step_s)]
    for forecast, window_s in DAYS_FORECASTS[: effort.count(len(DAYS_FORECASTS))]:
        chosen = ForecastSettings(forecast, window_s)
        yield run(f"twitter_{DAYS}_days", _shortened(Trace(read.step_s, means), effort), chosen)


def _shortened(trace: Trace, effort: Effort) -> Trace:
    """Returns the first minute of the trace for a smoke run."""
    intervals = max(1, round(SMOKE_S / trace.step_s)) if effort.rounds == 1 else len(trace.rps)
    return replace(trace, rps=trace.rps[:intervals])
