"""The controller over 14 days of a Twitter stream on four A100-80GB, simulated without a break, beside the paper's.

The trace has the means of five minutes; arrivals in each second are Poisson. It is scaled so that its highest mean
needs 85% of what the GPUs carry. A gap at the end of each day is an artefact of the trace and is left out.
"""

import asyncio
import resource
import time
from collections.abc import Iterator

import numpy as np

from benchmarks import a100
from benchmarks.controller.simulated import GRAPH, PAPER_MODE, TRACES, gpus, largest_rps
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.api.planning import load_problem
from jigsaw_triton.api.replaying import PEAK, Replay, replay
from jigsaw_triton.evaluation.replay import OURS, Contender
from jigsaw_triton.evaluation.simulator.accounting import Array, Operation
from jigsaw_triton.evaluation.simulator.memory import TIME_LIMIT_S, PlanMemory
from jigsaw_triton.evaluation.traces import Trace, read_trace
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.search.solve import make_plan
from jigsaw_triton.planner.solver.solver import lasting_solvers

BIN_S = 300
"""Length of an interval of the trace in seconds."""

EVENTS_S = 3600
"""Seconds simulated event by event."""

SMOKE_BINS = 1
"""Number of the trace's intervals in a smoke run."""


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Simulates both controllers over 14 days. A smoke run takes the first five minutes."""
    if not a100.TABLE.exists():
        progress("twitter: skipped: the A100 table and the traces are not beside the checkout")
        return []
    return await asyncio.to_thread(lambda: list(_measure(progress, effort)))


def cpu_s() -> float:
    """Returns the processor time of this process and of those that it has started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _measure(progress: Progress, effort: Effort) -> Iterator[Figure]:
    read = read_trace(TRACES / "twitter_5min.csv")
    bins = len(read.rps) if effort.rounds > 1 else SMOKE_BINS
    means = read.rps[read.rps > 0][:bins]
    trace = Trace(read.step_s, means * PEAK * largest_rps(progress, effort) / float(means.max()))
    yield from _fluid_errors(trace, progress, effort)
    yield from _whole_trace(trace, progress, effort)


def _run(
    contender: Contender, trace: Trace, seconds: int, progress: Progress, effort: Effort, *, check_s: int = 0
) -> Replay:
    """Simulates a controller over the beginning of the trace.

    Args:
        contender: Controller.
        trace: Arrivals.
        seconds: Seconds of the trace.
        progress: Recipient of the progress.
        effort: Effort of the run.
        check_s: Seconds that are also simulated event by event.
    """

    def note(one: Contender, part: float) -> None:
        if int(50 * part) > reported[-1]:
            reported.append(int(50 * part))
            progress(f"twitter: {one}, {part:.0%} of {seconds / 3600:.1f} hours")

    reported = [0]
    graph = a100.reference_graph(GRAPH)
    return replay(
        graph,
        Trace(trace.step_s, trace.rps[: seconds // BIN_S]),
        contenders=(contender,),
        scale=1.0,
        gpus=gpus(effort),
        driver="emulated",
        profiles=a100.a100_table(graph),
        check_s=check_s,
        progress=note,
    )


def _fluid_errors(trace: Trace, progress: Progress, effort: Effort) -> Iterator[Figure]:
    """Compares the fluid simulation of the first hour with one event by event."""
    events_s = min(EVENTS_S, trace.seconds)
    for name, contender in (("ours", OURS), ("paper", PAPER_MODE)):
        began = cpu_s()
        check = _run(contender, trace, events_s, progress, effort, check_s=events_s).checks[contender]
        speed = events_s / (cpu_s() - began)
        note = f"{contender}: {check.events:.4%} event by event, {check.fluid:.4%} fluid; first {events_s} s"
        yield figure(f"controller.fluid_error.{name}", 100 * (check.events - check.fluid), "points", note)
        if contender == OURS:
            note = "simulated over processor time, event by event, planning and the fluid run included"
            yield figure("controller.sim_speed.events", speed, "ratio", note, at_least=50)


def _whole_trace(trace: Trace, progress: Progress, effort: Effort) -> Iterator[Figure]:
    """Compares both controllers, and ours with the slices that exact plans for the known load need."""
    seconds = trace.seconds
    began = cpu_s()
    ours = _operation(_run(OURS, trace, seconds, progress, effort))
    speed = seconds / (cpu_s() - began)
    paper = _operation(_run(PAPER_MODE, trace, seconds, progress, effort))
    days = f"{seconds / 86400:.1f} days"
    note = f"{ours.slices.mean():.2f} of 28 slices on average, {len(ours.changes)} changes in {days}"
    yield figure("controller.twitter.violations", ours.violation_share, "share", note, at_most=0.003)
    note = f"paper's controller; {paper.slices.mean():.2f} slices on average, {len(paper.changes)} changes in {days}"
    yield figure("controller.twitter.paper_violations", paper.violation_share, "share", note)
    ratio = float(ours.slices.mean() / paper.slices.mean())
    more = float(np.mean(_by_bin(ours) > _by_bin(paper) + 1e-9))
    note = (
        f"mean slices over those of the paper's controller, the baseline; more in {more:.0%} of the bins of 5 minutes"
    )
    yield figure("controller.twitter.slices", ratio, "ratio", note, at_most=0.9, baseline=float(paper.slices.mean()))
    progress("twitter: clairvoyant reference")
    reference = float(np.mean(list(_clairvoyant(trace, gpus(effort)))))
    note = (
        "mean slices of exact plans for the known mean of every 5 minutes over those of the paper's controller, the "
        "baseline: a controller that keeps the SLO cannot reach the goal of `controller.twitter.slices`"
    )
    ratio = reference / float(paper.slices.mean())
    yield figure("controller.twitter.clairvoyant_slices", ratio, "ratio", note, baseline=float(paper.slices.mean()))
    regret = float(ours.slices.mean()) / reference
    note = f"slice-hours over those of exact plans for the known mean of every 5 minutes, changes free; {days}"
    yield figure("controller.twitter.regret", regret, "ratio", note, at_most=1.10, baseline=reference)
    note = f"simulated over processor time, planning included; fluid between events; {days}"
    yield figure("controller.sim_speed.twitter", speed, "ratio", note, at_least=2000)


def _operation(found: Replay) -> Operation:
    (system,) = found.systems
    assert system.operation is not None
    return system.operation


def _by_bin(run: Operation) -> Array:
    """Returns the mean slices in each interval of the trace."""
    whole = len(run.slices) // BIN_S * BIN_S
    means: Array = run.slices[:whole].reshape(-1, BIN_S).mean(axis=1)
    return means


def _clairvoyant(trace: Trace, served_by: str) -> Iterator[int]:
    """Yields the slices of the exact plan on these GPUs for each interval's mean."""
    graph, memory, options = a100.reference_graph(GRAPH), PlanMemory(), Options(time_limit_s=TIME_LIMIT_S)
    table = a100.a100_table(graph)
    base = load_problem(graph, gpus=served_by, driver="emulated", profiles=table, demand=1.0)
    with lasting_solvers() as solvers:

        def plan(problem: Problem) -> int:
            return memory.plan(problem, options, lambda: make_plan(problem, options, solvers=solvers)).slices_used

        for rps in trace.rps.tolist():
            workload = Workload(base.workloads[0].graph, rps)
            yield plan(Problem((workload,), base.cluster, base.profiles))
