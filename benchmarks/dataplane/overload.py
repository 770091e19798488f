"""Overload: a graph at three times the capacity of its workers, with another graph behind the same gateway.

Requests are Poisson arrivals, whether or not earlier ones were answered. They carry no timeout, so the graph's SLO is
their limit. The variants are emulated, so their time is known exactly.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client, graphs
from benchmarks.dataplane.client import OK, UNAVAILABLE, Outcome
from benchmarks.dataplane.sides import SETTINGS
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.servers.installation import find_installation

RUN_S = 12.0
SETTLE_S = 2.0
"""Seconds in which the queues of an overloaded graph get full."""

STAGES = ("first", "second")
TARGETS = ("graph", "ensemble", "bls")
BATCH, BATCH_MS = 8, 100.0
WORKERS = 2
"""Workers of each stage of each graph."""

CAPACITY_RPS = WORKERS * BATCH * 1000 / BATCH_MS
SLO_MS = 800
OVERLOAD = 3.0
QUIET = 0.5
"""Load of the other graph, relative to its own capacity."""

SERVED_GOAL, IN_SLO_GOAL, ISOLATION_GOAL = 0.98, 0.999, 1.3
REFUSED_GOAL_MS = {"graph": 10.0, "ensemble": 20.0}


@dataclass(frozen=True, slots=True)
class Round:
    """Outcomes of requests.

    Attributes:
        alone: Outcomes of the quiet graph without other load.
        beside: Outcomes of the quiet graph while the loud graph is overloaded.
        loud: Outcomes of the loud graph by target. Requests to target `graph` start settle_s before those in `beside`;
            the other targets are overloaded afterwards, equally long.
        settle_s: Seconds in which requests are sent until the queues are full.
        run_s: Seconds in which requests are sent after that.
    """

    alone: Sequence[Outcome]
    beside: Sequence[Outcome]
    loud: Mapping[str, Sequence[Outcome]]
    settle_s: float
    run_s: float


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Starts the graphs, and loads them."""
    cluster = system.cluster("cpu", 3)
    rows = ProfileTable(
        system.profile("cpu", stage, "only", BATCH, BATCH_MS, CAPACITY_RPS / WORKERS) for stage in STAGES
    )
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        targets = {"quiet": "graph", **{f"loud-{target}": target for target in TARGETS}}
        every = {
            name: graphs.emulated(Path(path), name, stages=STAGES, slo_ms=SLO_MS, target=target)
            for name, target in targets.items()
        }
        # Enough for the plan to have all workers of a stage, with headroom for any latency model. A smoke run has one.
        workers = effort.count(WORKERS)
        demand = dict.fromkeys(every, 0.7 * CAPACITY_RPS * workers / WORKERS)
        wanted = Wanted(every, demand, dict.fromkeys(every, rows), cluster, latency_model=system.BY_HAND)
        async with system.system(find_installation(), SETTINGS) as running:
            progress(f"overload: starting {len(every) * len(STAGES) * workers} workers")
            await running.deploy(wanted)
            rounds = []
            for number in range(effort.rounds):
                progress(f"overload: round {number + 1} of {effort.rounds}")
                settle_s, run_s = effort.seconds(SETTLE_S), effort.seconds(RUN_S)
                rounds.append(await _round(cluster.gateway, Random(number), settle_s, run_s))
    return figures(rounds)


async def _round(ports: GatewayPorts, rng: Random, settle_s: float, run_s: float) -> Round:
    def load(graph: str, capacity_share: float, seconds: float) -> asyncio.Task[list[Outcome]]:
        tensors = {"X": np.ones((1, graphs.FLOATS), np.float32)}
        request = client.request(graph, tensors, timeout_us=None)
        times = Random(rng.random())
        return asyncio.create_task(client.poisson(ports, request, capacity_share * CAPACITY_RPS, seconds, times))

    alone = await load("quiet", QUIET, run_s)
    loud = load("loud-graph", OVERLOAD, settle_s + run_s)
    # Wait until the queues of the loud graph are full.
    await asyncio.sleep(settle_s)
    beside = await load("quiet", QUIET, run_s)
    ended = {"graph": await loud}
    for target in TARGETS[1:]:
        ended[target] = await load(f"loud-{target}", OVERLOAD, settle_s + run_s)
    return Round(alone, beside, ended, settle_s, run_s)


def figures(rounds: Sequence[Round]) -> list[Figure]:
    """Computes the figures from the rounds."""
    ratios = [p99(r.beside) / p99(r.alone) for r in rounds]
    load = (
        f"two stages of {WORKERS} emulated workers of {BATCH_MS:g} ms and batch {BATCH}, SLO {SLO_MS} ms, Poisson "
        f"load of {OVERLOAD:g} x capacity over HTTP; median of {len(rounds)} rounds"
    )
    quiet = counted([outcome for r in rounds for outcome in r.beside])
    found = []
    for target in TARGETS:
        name = "dataplane.overload3x" + ("" if target == "graph" else f".{target}")
        found += _overloaded(name, rounds, load, target)
    return [
        *found,
        figure(
            "dataplane.isolation",
            median(ratios),
            "ratio",
            f"p99 of a graph with its own workers, at {QUIET:g} of its capacity, while another graph behind the "
            f"gateway is at {OVERLOAD:g} x, relative to its p99 alone; median of {len(rounds)} rounds, "
            f"{spread(ratios)}; {quiet}; baseline: p99 alone, ms",
            at_most=ISOLATION_GOAL,
            baseline=median(p99(r.alone) for r in rounds),
        ),
    ]


def _overloaded(name: str, rounds: Sequence[Round], load: str, target: str) -> list[Figure]:
    """Computes the figures of an overloaded graph. Only the target `graph` has goals for served requests."""
    loud = [r.loud[target] for r in rounds]
    shares = [_served_rps(r, target) / CAPACITY_RPS for r in rounds]
    in_slo = [sum(ms <= SLO_MS for ms in ok) / max(1, len(ok)) for ok in map(_latencies_ms, loud)]
    refused_ms = [_refused_ms(outcomes) for outcomes in loud]
    sums = counted([outcome for outcomes in loud for outcome in outcomes])
    has_goal = target == "graph"
    return [
        figure(
            f"{name}.served",
            median(shares),
            "share",
            f"target {target}; {load}, {spread(shares)}; {sums}; baseline: capacity, requests/s",
            at_least=SERVED_GOAL if has_goal else None,
            baseline=CAPACITY_RPS,
        ),
        figure(
            f"{name}.in_slo",
            median(in_slo),
            "share",
            f"share of the served requests; {load}, {spread(in_slo)}; their p99 {median(map(p99, loud)):.0f} ms",
            at_least=IN_SLO_GOAL if has_goal else None,
        ),
        figure(
            f"{name}.refused_ms",
            median(refused_ms),
            "ms",
            f"p99 from sending a request to its refusal; {load}, {spread(refused_ms)}",
            at_most=REFUSED_GOAL_MS.get(target),
        ),
    ]


def _served_rps(run: Round, target: str) -> float:
    """Returns the answers a second from when the queues were full until the last request was sent."""
    ended = [outcome.ended_s for outcome in run.loud[target] if outcome.status == OK]
    return sum(run.settle_s <= at_s < run.settle_s + run.run_s for at_s in ended) / run.run_s


def _refused_ms(outcomes: Sequence[Outcome]) -> float:
    """Returns the 99th percentile of the time until a refusal, in milliseconds; 0 if no request was refused."""
    waits_ms = [outcome.latency_ms for outcome in outcomes if outcome.status == UNAVAILABLE]
    return float(np.percentile(waits_ms, 99)) if waits_ms else 0.0


def _latencies_ms(outcomes: Sequence[Outcome]) -> list[float]:
    """Returns the latencies of answered requests, in milliseconds."""
    return [outcome.latency_ms for outcome in outcomes if outcome.status == OK]


def p99(outcomes: Sequence[Outcome]) -> float:
    """Returns the 99th percentile of the latency of answered requests, in milliseconds.

    Raises:
        ServerError: No request was answered.
    """
    latencies_ms = _latencies_ms(outcomes)
    if not latencies_ms:
        raise ServerError(f"no request was answered: {counted(outcomes)}", where="overload")
    return float(np.percentile(latencies_ms, 99))


def counted(outcomes: Sequence[Outcome]) -> str:
    """Returns the numbers of requests by outcome, as text for a note."""
    counts = Counter(outcome.status for outcome in outcomes)
    failed = counts.total() - counts[OK] - counts[UNAVAILABLE]
    return f"{counts.total()} sent, {counts[OK]} served, {counts[UNAVAILABLE]} refused (UNAVAILABLE), {failed} failed"
