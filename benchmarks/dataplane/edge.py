"""A deployment behind HAProxy, relative to the same deployment without it.

Both have the same chain of two models. perf_analyzer loads them in turn over gRPC. The figures compare consecutive
runs.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks import system
from benchmarks.dataplane import graphs, sides
from benchmarks.dataplane.compare import added_ms, clients, rates
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.evaluation.load import Measured
from jigsaw_triton.gpus.gateway import Edge
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.servers.haproxy.program import find_haproxy
from jigsaw_triton.servers.installation import find_installation
from jigsaw_triton.servers.perf_analyzer import find_perf_analyzer
from jigsaw_triton.servers.ports import free_ports

RUN_S = 2.0
WARM_UP_S = 1.5
CLIENTS = (1, 8, 32)
SIDES = ("direct", "edge")

RATE_GOALS = {32: 0.93}
P50_ADDED_GOAL_MS = 0.2

_DIRECT = "the same deployment without an edge, requests/s"

Runs = Mapping[tuple[str, int], Sequence[Measured]]
"""(side, clients) -> one measurement for each round."""


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Starts both deployments, loads them in turn, and compares."""
    installation, analyzer, haproxy = find_installation(), find_perf_analyzer(), find_haproxy()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jigsaw-bench-")))
        progress(f"starting a deployment, and one behind HAProxy {haproxy.version}")
        chain = graphs.chain(folder, "chain")
        found = {}
        for side in SIDES:
            wanted = sides.one_worker_per_task([chain], _cluster(edge=side == "edge"))
            found[side] = (await stack.enter_async_context(sides.behind_gateway(installation, wanted)))["chain"]

        async def load(side: str, count: int, seconds: float) -> Measured:
            return await asyncio.to_thread(found[side].load, analyzer, folder, count, seconds)

        for side in SIDES if effort.warm_ups else ():
            await load(side, 8, WARM_UP_S)
        runs: dict[tuple[str, int], list[Measured]] = {}
        for number in range(effort.rounds):
            for count in CLIENTS:
                progress(f"round {number + 1} of {effort.rounds}: {clients(count)}")
                for side in SIDES:
                    runs.setdefault((side, count), []).append(await load(side, count, effort.seconds(RUN_S)))
    return figures(runs)


def _cluster(*, edge: bool) -> Cluster:
    cluster = system.cluster("cpu", 2)
    if not edge:
        return cluster
    return replace(cluster, edge=Edge(metrics=free_ports("127.0.0.1", 1)[0]))


def figures(runs: Runs) -> list[Figure]:
    """Computes the figures from the runs."""
    found = [
        rates(f"dataplane.edge.rate.{clients(n)}", runs["edge", n], runs["direct", n], _DIRECT, RATE_GOALS.get(n))
        for n in CLIENTS
    ]
    added = added_ms(runs["edge", 1], runs["direct", 1])
    note = f"1 client; median of {len(added)} rounds, {spread(added)}; baseline: without an edge, p50 in ms"
    baseline = median(run.latency_ms[50] for run in runs["direct", 1])
    name = "dataplane.edge.p50_added_ms"
    return [*found, figure(name, median(added), "ms", note, at_most=P50_ADDED_GOAL_MS, baseline=baseline)]
