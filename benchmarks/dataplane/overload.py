"""Three times the load that a graph's workers can carry, and another graph behind the same gateway meanwhile.

Requests come at Poisson times whether or not earlier ones were answered. They carry no timeout, so the graph's SLO is
their limit. Emulated variants, whose time is known exactly.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client, graphs
from benchmarks.dataplane.client import OK, UNAVAILABLE, Outcome
from benchmarks.dataplane.sides import SETTINGS
from benchmarks.harness import Figure, Tell, figure, spread
from jigsaw_triton.controller.generation import Wanted
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.model import GatewayPorts
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.servers.installation import find_installation

ROUNDS = 3
RUN_S = 12.0
SETTLE_S = 2.0
STAGES = ("first", "second")
BATCH, BATCH_MS = 8, 100.0
WORKERS = 2
"""Of each stage of each graph."""

CAPACITY_RPS = WORKERS * BATCH * 1000 / BATCH_MS
SLO_MS = 800
OVERLOAD = 3.0
QUIET = 0.5
"""Load of the other graph, of its own capacity."""

SERVED_GOAL, IN_SLO_GOAL, ISOLATION_GOAL = 0.9, 0.99, 1.3


@dataclass(frozen=True, slots=True)
class Round:
    """What became of requests.

    Attributes:
        alone: Of the quiet graph, nothing else going on.
        beside: Of the quiet graph while the loud one was overloaded.
        loud: Of the loud graph: sent from SETTLE_S before those beside it.
        piped: Of the same graph as a pipeline, as long and as much overloaded.
    """

    alone: Sequence[Outcome]
    beside: Sequence[Outcome]
    loud: Sequence[Outcome]
    piped: Sequence[Outcome]


async def measure(tell: Tell) -> list[Figure]:
    """Brings up the graphs, and loads them."""
    cluster = system.cluster("cpu", 2)
    rows = ProfileTable(
        system.profile("cpu", stage, "only", BATCH, BATCH_MS, CAPACITY_RPS / WORKERS) for stage in STAGES
    )
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        targets = {"loud": "ensemble", "quiet": "ensemble", "piped": "bls"}
        every = {
            name: graphs.emulated(Path(path), name, stages=STAGES, slo_ms=SLO_MS, target=target)
            for name, target in targets.items()
        }
        # So much that a stage needs all its workers, with room for any planner's idea of a queue.
        demand = dict.fromkeys(every, 0.7 * CAPACITY_RPS)
        wanted = Wanted(every, demand, dict.fromkeys(every, rows), cluster, latency_model=system.BY_HAND)
        async with system.system(find_installation(), SETTINGS) as running:
            tell(f"overload: starting {len(every) * len(STAGES) * WORKERS} workers")
            await running.deploy(wanted)
            rounds = []
            for number in range(ROUNDS):
                tell(f"overload: round {number + 1} of {ROUNDS}")
                rounds.append(await _round(cluster.gateway, Random(number)))
    return figures(rounds)


async def _round(ports: GatewayPorts, rng: Random) -> Round:
    def load(graph: str, of_capacity: float, seconds: float) -> asyncio.Task[list[Outcome]]:
        tensors = {"X": np.ones((1, graphs.FLOATS), np.float32)}
        request = client.request(graph, tensors, timeout_us=None)
        times = Random(rng.random())
        return asyncio.create_task(client.poisson(ports, request, of_capacity * CAPACITY_RPS, seconds, times))

    alone = await load("quiet", QUIET, RUN_S)
    loud = load("loud", OVERLOAD, RUN_S + SETTLE_S)
    # Once the queues of the loud one are full.
    await asyncio.sleep(SETTLE_S)
    beside = await load("quiet", QUIET, RUN_S)
    ended = await loud
    return Round(alone, beside, ended, await load("piped", OVERLOAD, RUN_S + SETTLE_S))


def figures(rounds: Sequence[Round]) -> list[Figure]:
    """What the rounds say."""
    ratios = [p99(r.beside) / p99(r.alone) for r in rounds]
    load = (
        f"two stages of {WORKERS} emulated workers of {BATCH_MS:g} ms and batch {BATCH}, SLO {SLO_MS} ms, Poisson "
        f"load of {OVERLOAD:g} x capacity over HTTP; median of {len(rounds)} rounds"
    )
    quiet = counted([outcome for r in rounds for outcome in r.beside])
    return [
        *_overloaded("dataplane.overload3x", [r.loud for r in rounds], load),
        *_overloaded("dataplane.overload3x.bls", [r.piped for r in rounds], f"as a pipeline; {load}"),
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


def _overloaded(name: str, rounds: Sequence[Sequence[Outcome]], load: str) -> list[Figure]:
    """What became of the requests of an overloaded graph."""
    shares = [_served_rps(outcomes) / CAPACITY_RPS for outcomes in rounds]
    in_slo = [sum(ms <= SLO_MS for ms in ok) / max(1, len(ok)) for ok in map(_latencies_ms, rounds)]
    told = counted([outcome for outcomes in rounds for outcome in outcomes])
    return [
        figure(
            f"{name}.served",
            median(shares),
            "share",
            f"{load}, {spread(shares)}; {told}; baseline: capacity, requests/s",
            at_least=SERVED_GOAL,
            baseline=CAPACITY_RPS,
        ),
        figure(
            f"{name}.in_slo",
            median(in_slo),
            "share",
            f"of what was served; {load}, {spread(in_slo)}; their p99 {median(map(p99, rounds)):.0f} ms",
            at_least=IN_SLO_GOAL,
        ),
    ]


def _served_rps(outcomes: Sequence[Outcome]) -> float:
    """Answers a second once the queues were full, and as long as requests came."""
    ended = [outcome.ended_s for outcome in outcomes if outcome.status == OK]
    return sum(SETTLE_S <= at_s < SETTLE_S + RUN_S for at_s in ended) / RUN_S


def _latencies_ms(outcomes: Sequence[Outcome]) -> list[float]:
    """Of those that were answered."""
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
