"""One task with very many workers: share of time in which they are busy, and cost at the gateway.

The workers are stand-ins in one process, which hold each call for a while, and count for how long. The gateway is real.
Its processor time for a request is compared with its time with few workers, at about the same rate and with as many
clients, since each connection of a client costs time too.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client, graphs
from benchmarks.dataplane.standin import Count
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.background import end_tasks
from jigsaw_triton.compiler import names
from jigsaw_triton.compiler.bundle import RouteEntry, TaskFront
from jigsaw_triton.compiler.front import graph_front
from jigsaw_triton.compiler.store import write_route
from jigsaw_triton.servers.installation import find_installation
from jigsaw_triton.servers.os_process import processor_s

MANY, FEW = 700, 7
HOLD_MS = 500.0
RATE_RPS = MANY * 1000 / HOLD_MS
WARM_UP_S = 3.0
RUN_S = 6.0
AFTER_S = 1.0
SLO_MS = 60_000
CLIENTS_PER_WORKER = 2
"""Clients for each of the many workers."""


BUSY_GOAL = 0.95
CPU_GOAL = 1.2


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement.

    Attributes:
        busy: Share of the workers' time in which they hold a call.
        cpu_us: Processor time of the gateway for one request, in microseconds.
    """

    busy: float
    cpu_us: float


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Measures many workers and few, in turn."""
    many = max(2 * FEW, effort.count(MANY))
    hold_ms = 1000 * many / RATE_RPS
    runs: dict[int, list[Run]] = {many: [], FEW: []}
    for number in range(effort.rounds):
        progress(f"scale: round {number + 1} of {effort.rounds}, {many} and {FEW} workers")
        for workers in runs:
            runs[workers].append(await _run(workers, hold_ms * workers / many, CLIENTS_PER_WORKER * many, effort))
    busy = [run.busy for run in runs[many]]
    ratios = [one.cpu_us / other.cpu_us for one, other in zip(runs[many], runs[FEW], strict=True)]
    return [
        figure(
            "dataplane.scale.busy",
            median(busy),
            "share",
            f"share of time in which {many} stand-in workers hold a call of {hold_ms:g} ms; one task; {spread(busy)}",
            at_least=BUSY_GOAL,
        ),
        figure(
            "dataplane.scale.cpu",
            median(ratios),
            "ratio",
            f"the gateway's processor time per request with {many} workers, relative to {FEW} at the same rate "
            f"and with as many clients; "
            f"median of {effort.rounds} rounds, {spread(ratios)}; {median(r.cpu_us for r in runs[many]):.0f} us; "
            f"baseline: with {FEW}, us",
            at_most=CPU_GOAL,
            baseline=median(run.cpu_us for run in runs[FEW]),
        ),
    ]


async def _run(workers: int, hold_ms: float, clients: int, effort: Effort) -> Run:
    cluster = system.cluster("cpu")
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        graph = graphs.emulated(Path(path), "wide", slo_ms=SLO_MS)
        async with system.lone_server(find_installation(), cluster.gateway) as fleet:
            run_dir = fleet.commands.paths.run
            async with _standins(run_dir / "workers", workers, hold_ms) as count:
                entries = tuple(RouteEntry(f"w{number}", "work", 1, 1, "only") for number in range(workers))
                route = names.route(graph.name, "work", 1)
                write_route(run_dir, route, entries)
                task = TaskFront(route, "work", entries)
                front = graph_front(graph, [task], system.templates()["front"], rest_ms={"work": 0.0})
                await fleet.gateway.load([front])
                request = client.request(graph.name, {"X": np.ones((1, graphs.FLOATS), np.float32)})
                (gateway,) = fleet.pids()

                warm_up_s, seconds = effort.seconds(WARM_UP_S), effort.seconds(RUN_S)
                # The clients go on until after the second count: when they end, the workers are no longer busy.
                load = client.closed_loop(
                    cluster.gateway,
                    request,
                    clients,
                    warm_up_s=warm_up_s,
                    seconds=seconds + AFTER_S,
                )
                return await run_under(load, count, gateway, workers, warm_up_s, seconds)


async def run_under(
    load: Coroutine[Any, Any, float],
    count: Callable[[], Awaitable[Count]],
    gateway: int,
    workers: int,
    warm_up_s: float,
    seconds: float,
) -> Run:
    """Measures while clients send requests. Raises what they raise.

    Args:
        load: Clients, which go on until after the measurement.
        count: Function that asks the workers what they have done so far.
        gateway: Process id of the gateway.
        workers: Number of workers.
        warm_up_s: Seconds before the measurement.
        seconds: Seconds of the measurement.
    """
    clients = asyncio.create_task(load)
    try:
        await asyncio.sleep(warm_up_s)
        before, before_s = await count(), processor_s([gateway])
        await asyncio.sleep(seconds)
        after, after_s = await count(), processor_s([gateway])
        await clients
    finally:
        await end_tasks(clients)
    held_s, calls = after.held_s - before.held_s, after.calls - before.calls
    return Run(held_s / (after.at_s - before.at_s) / workers, 1e6 * (after_s - before_s) / max(1, calls))


@asynccontextmanager
async def _standins(folder: Path, count: int, hold_ms: float) -> AsyncIterator[Callable[[], Awaitable[Count]]]:
    """Runs stand-in workers inside the `with` block. Yields a function that asks what they have done so far."""
    arguments = ("-m", "benchmarks.dataplane.standin", str(folder), str(count), str(hold_ms), str(graphs.FLOATS))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    source, sink = process.stdout, process.stdin
    assert source is not None
    assert sink is not None

    async def ask() -> Count:
        sink.write(b"\n")
        return Count(**json.loads(await source.readline()))

    try:
        await source.readline()
        yield ask
    finally:
        sink.close()
        await process.wait()
