"""Isolation in a shared slice: effect of a graph at three times its planned load on the other graph.

The models of the two graphs take turns in one slice, whose planned load is so low that turns rarely meet
(`planner.candidates.sharing`). The variants are emulated, so their time is known exactly. Requests are Poisson arrivals
without a timeout.

A turn that has begun is not interrupted. The probability that a call meets a turn of the other model is that model's
load, and the call waits for the rest of the turn. With the planned load of 9% the p99 of that wait is 0.89 of a turn,
with three times as much 0.96. Limiting the other graph to its planned rate would gain only the difference.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client, graphs
from benchmarks.dataplane.client import Outcome
from benchmarks.dataplane.overload import ISOLATION_GOAL, OVERLOAD, SETTLE_S, counted, p99
from benchmarks.dataplane.sides import SETTINGS
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.planner.domain.problem import SHARED_LOAD
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.servers.installation import find_installation

RUN_S = 12.0
LEAST_S = 1.0
"""Seconds that are enough for a few requests at the planned load."""

TURN_MS = 10.0
SLO_MS = 400
PLANNED_RPS = 0.45 * SHARED_LOAD * 1000 / TURN_MS
"""Planned requests/s of each graph: nearly half of the load that a shared slice may have."""


@dataclass(frozen=True, slots=True)
class Round:
    """Outcomes of requests.

    Attributes:
        alone: Outcomes of the quiet graph without other load.
        planned: Outcomes of the quiet graph while the loud graph has its planned load.
        beside: Outcomes of the quiet graph while the loud graph has OVERLOAD times its planned load.
        loud: Outcomes of the loud graph in the case `beside`.
    """

    alone: Sequence[Outcome]
    planned: Sequence[Outcome]
    beside: Sequence[Outcome]
    loud: Sequence[Outcome]


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Starts both graphs in one slice, and loads them."""
    async with system.system(find_installation(), SETTINGS) as running:
        with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
            wanted = deployment(Path(path))
            progress("shared: starting one worker for two graphs")
            await running.deploy(wanted)
        rounds = []
        for number in range(effort.rounds):
            progress(f"shared: round {number + 1} of {effort.rounds}")
            settle_s, run_s = effort.seconds(SETTLE_S), effort.seconds(RUN_S, least_s=LEAST_S)
            rounds.append(await _round(wanted.cluster.gateway, Random(number), settle_s, run_s))
    return [isolation(rounds)]


def deployment(folder: Path) -> Wanted:
    """Returns a deployment of both graphs, which may share slices."""
    rows = ProfileTable([system.profile("cpu", "work", "only", 1, TURN_MS, 1000 / TURN_MS)])
    both = {name: graphs.emulated(folder, name, slo_ms=SLO_MS) for name in ("loud", "quiet")}
    demand = dict.fromkeys(both, PLANNED_RPS)
    return Wanted(
        both,
        demand,
        dict.fromkeys(both, rows),
        system.cluster("cpu"),
        share=True,
        latency_model=system.BY_HAND,
    )


async def _round(ports: GatewayPorts, rng: Random, settle_s: float, run_s: float) -> Round:
    def load(graph: str, planned_share: float, seconds: float) -> asyncio.Task[list[Outcome]]:
        tensors = {"X": np.ones((1, graphs.FLOATS), np.float32)}
        request = client.request(graph, tensors, timeout_us=None)
        times = Random(rng.random())
        return asyncio.create_task(client.poisson(ports, request, planned_share * PLANNED_RPS, seconds, times))

    async def beside(planned_share: float) -> tuple[Sequence[Outcome], Sequence[Outcome]]:
        loud = load("loud", planned_share, settle_s + run_s)
        await asyncio.sleep(settle_s)
        return await load("quiet", 1.0, run_s), await loud

    alone = await load("quiet", 1.0, run_s)
    planned, _ = await beside(1.0)
    overloaded, loud = await beside(OVERLOAD)
    return Round(alone, planned, overloaded, loud)


def isolation(rounds: Sequence[Round]) -> Figure:
    """Computes the quiet graph's p99 beside the overloaded graph, relative to its p99 alone."""
    ratios = [p99(r.beside) / p99(r.alone) for r in rounds]
    planned = median(p99(r.planned) / p99(r.alone) for r in rounds)
    beside_ms = median(p99(r.beside) for r in rounds)
    quiet = counted([outcome for r in rounds for outcome in r.beside])
    loud = counted([outcome for r in rounds for outcome in r.loud])
    note = (
        f"p99 of a graph that shares a slice, while the other graph has {OVERLOAD:g} x its planned load "
        f"({PLANNED_RPS:g} requests/s each, turns of {TURN_MS:g} ms), relative to its p99 alone; median of "
        f"{len(rounds)} rounds, {spread(ratios)}; {quiet}; the other graph: {loud}; with both as planned "
        f"{planned:.2f}; p99 {beside_ms:.0f} ms, planned are two cycles of {2 * TURN_MS:g} ms; a turn that has begun "
        f"is not interrupted; baseline: p99 alone, ms"
    )
    return figure(
        "dataplane.isolation_shared",
        median(ratios),
        "ratio",
        note,
        at_most=ISOLATION_GOAL,
        baseline=median(p99(r.alone) for r in rounds),
    )
