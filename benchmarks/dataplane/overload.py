"""Three times the load that a graph's workers can carry, and another graph behind the same gateway meanwhile.

Requests come at Poisson times whether or not earlier ones were answered. They carry no timeout, so the graph's SLO is
their limit. Emulated variants, whose time is known exactly.
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
from benchmarks.dataplane.effort import FULL, Effort
from benchmarks.dataplane.sides import SETTINGS
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.controller.generation import Wanted
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.model import GatewayPorts
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.servers.installation import find_installation

RUN_S = 12.0
SETTLE_S = 2.0
STAGES = ("first", "second")
TARGETS = ("graph", "ensemble", "bls")
BATCH, BATCH_MS = 8, 100.0
WORKERS = 2
"""Of each stage of each graph."""

CAPACITY_RPS = WORKERS * BATCH * 1000 / BATCH_MS
SLO_MS = 800
OVERLOAD = 3.0
QUIET = 0.5
"""Load of the other graph, of its own capacity."""

SERVED_GOAL, IN_SLO_GOAL, ISOLATION_GOAL = 0.98, 0.999, 1.3
REFUSED_GOAL_MS = {"graph": 10.0, "ensemble": 20.0}


@dataclass(frozen=True, slots=True)
class Round:
    """Outcomes of requests.

    Attributes:
        alone: Requests of the quiet graph, nothing else going on.
        beside: Requests of the quiet graph while the loud one was overloaded.
        loud: Requests of the loud graph by target: for `graph` sent from SETTLE_S before those beside it, for the
            others as long and as much overloaded.
        run_s: Seconds for which requests came once the queues were full.
    """

    alone: Sequence[Outcome]
    beside: Sequence[Outcome]
    loud: Mapping[str, Sequence[Outcome]]
    run_s: float


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Brings up the graphs, and loads them."""
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
        # So much that a stage needs all its workers, with room for any planner's idea of a queue.
        demand = dict.fromkeys(every, 0.7 * CAPACITY_RPS)
        wanted = Wanted(every, demand, dict.fromkeys(every, rows), cluster, latency_model=system.BY_HAND)
        async with system.system(find_installation(), SETTINGS) as running:
            progress(f"overload: starting {len(every) * len(STAGES) * WORKERS} workers")
            await running.deploy(wanted)
            rounds = []
            for number in range(effort.rounds):
                progress(f"overload: round {number + 1} of {effort.rounds}")
                rounds.append(await _round(cluster.gateway, Random(number), effort.seconds(RUN_S)))
    return figures(rounds)


async def _round(ports: GatewayPorts, rng: Random, run_s: float) -> Round:
    def load(graph: str, of_capacity: float, seconds: float) -> asyncio.Task[list[Outcome]]:
        tensors = {"X": np.ones((1, graphs.FLOATS), np.float32)}
        request = client.request(graph, tensors, timeout_us=None)
        times = Random(rng.random())
        return asyncio.create_task(client.poisson(ports, request, of_capacity * CAPACITY_RPS, seconds, times))

    alone = await load("quiet", QUIET, run_s)
    loud = load("loud-graph", OVERLOAD, run_s + SETTLE_S)
    # Once the queues of the loud one are full.
    await asyncio.sleep(SETTLE_S)
    beside = await load("quiet", QUIET, run_s)
    ended = {"graph": await loud}
    for target in TARGETS[1:]:
        ended[target] = await load(f"loud-{target}", OVERLOAD, run_s + SETTLE_S)
    return Round(alone, beside, ended, run_s)


def figures(rounds: Sequence[Round]) -> list[Figure]:
    """The figures that the rounds come to."""
    ratios = [p99(r.beside) / p99(r.alone) for r in rounds]
    load = (
        f"two stages of {WORKERS} emulated workers of {BATCH_MS:g} ms and batch {BATCH}, SLO {SLO_MS} ms, Poisson "
        f"load of {OVERLOAD:g} x capacity over HTTP; median of {len(rounds)} rounds"
    )
    quiet = counted([outcome for r in rounds for outcome in r.beside])
    found = []
    for target in TARGETS:
        name = "dataplane.overload3x" + ("" if target == "graph" else f".{target}")
        found += _overloaded(name, [r.loud[target] for r in rounds], [r.run_s for r in rounds], load, target)
    return [
        *found,
        figure(
            "dataplane.isolation",
            median(ratios),
            "ratio",
            f"p99 of another graph with workers of its own behind the same gateway, at {QUIET:g} of its capacity, "
            f"while one is at {OVERLOAD:g} x, over the same alone; median of {len(rounds)} rounds, {spread(ratios)}; "
            f"{quiet}; baseline: p99 alone, ms",
            at_most=ISOLATION_GOAL,
            baseline=median(p99(r.alone) for r in rounds),
        ),
    ]


def _overloaded(
    name: str, rounds: Sequence[Sequence[Outcome]], runs_s: Sequence[float], load: str, target: str
) -> list[Figure]:
    """Figures of the requests of an overloaded graph; goals where it is one front."""
    shares = [_served_rps(outcomes, run_s) / CAPACITY_RPS for outcomes, run_s in zip(rounds, runs_s, strict=True)]
    in_slo = [sum(ms <= SLO_MS for ms in ok) / max(1, len(ok)) for ok in map(_latencies_ms, rounds)]
    refused_ms = [_refused_ms(outcomes) for outcomes in rounds]
    sums = counted([outcome for outcomes in rounds for outcome in outcomes])
    held = target == "graph"
    return [
        figure(
            f"{name}.served",
            median(shares),
            "share",
            f"target {target}; {load}, {spread(shares)}; {sums}; baseline: capacity, requests/s",
            at_least=SERVED_GOAL if held else None,
            baseline=CAPACITY_RPS,
        ),
        figure(
            f"{name}.in_slo",
            median(in_slo),
            "share",
            f"share of what was served; {load}, {spread(in_slo)}; their p99 {median(map(p99, rounds)):.0f} ms",
            at_least=IN_SLO_GOAL if held else None,
        ),
        figure(
            f"{name}.refused_ms",
            median(refused_ms),
            "ms",
            f"p99 from sending a request to its refusal; {load}, {spread(refused_ms)}",
            at_most=REFUSED_GOAL_MS.get(target),
        ),
    ]


def _served_rps(outcomes: Sequence[Outcome], run_s: float) -> float:
    """Answers a second once the queues were full, and as long as requests came."""
    ended = [outcome.ended_s for outcome in outcomes if outcome.status == OK]
    return sum(SETTLE_S <= at_s < SETTLE_S + run_s for at_s in ended) / run_s


def _refused_ms(outcomes: Sequence[Outcome]) -> float:
    """99th percentile of the milliseconds until a refusal; 0 where none was refused."""
    waits_ms = [outcome.latency_ms for outcome in outcomes if outcome.status == UNAVAILABLE]
    return float(np.percentile(waits_ms, 99)) if waits_ms else 0.0


def _latencies_ms(outcomes: Sequence[Outcome]) -> list[float]:
    """Latencies of those that were answered."""
    return [outcome.latency_ms for outcome in outcomes if outcome.status == OK]


def p99(outcomes: Sequence[Outcome]) -> float:
    """Milliseconds, of those that were answered.

    Raises:
        ServerError: None was.
    """
    latencies_ms = _latencies_ms(outcomes)
    if not latencies_ms:
        raise ServerError(f"no request was answered: {counted(outcomes)}", where="overload")
    return float(np.percentile(latencies_ms, 99))


def counted(outcomes: Sequence[Outcome]) -> str:
    """How many came to what."""
    counts = Counter(outcome.status for outcome in outcomes)
    failed = counts.total() - counts[OK] - counts[UNAVAILABLE]
    return f"{counts.total()} sent, {counts[OK]} served, {counts[UNAVAILABLE]} refused (UNAVAILABLE), {failed} failed"
