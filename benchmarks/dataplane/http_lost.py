"""Answers that are lost over HTTP, with very many requests at once and with very many clients.

Triton's HTTP server loses answers that come faster than it can pass them to its threads, and their clients wait for
ever. The backend prevents this by holding answers back.
"""

import asyncio
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client, graphs, sides
from benchmarks.dataplane.client import BROKEN, Connection
from benchmarks.dataplane.sides import SETTINGS
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.servers.installation import find_installation

AT_ONCE = 3000
CLIENTS = 1000
RUN_S = 8.0
LOST_S = 20.0
"""Seconds after which an answer counts as lost."""

SLO_MS, BATCH_MS = 200, 90.0
"""SLO and batch time with which nearly all requests are refused."""


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Loads a graph that refuses nearly all requests, and one that answers all."""
    rows = ProfileTable([system.profile("cpu", "work", "only", 1, BATCH_MS, 1000 / BATCH_MS)])
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        slow = graphs.emulated(Path(path), "slow", slo_ms=SLO_MS)
        quick = graphs.chain(Path(path), "quick")
        cluster = system.cluster("cpu")
        beside = sides.one_worker_per_task([quick], cluster)
        wanted = replace(
            beside,
            graphs={**beside.graphs, slow.name: slow},
            demand_rps={**beside.demand_rps, slow.name: 1.0},
            profiles={**beside.profiles, slow.name: rows},
        )
        async with system.system(find_installation(), SETTINGS) as running:
            progress("http_lost: starting three workers")
            await running.deploy(wanted)
            count = effort.count(AT_ONCE)
            progress(f"http_lost: {count} requests at once")
            refused = await _at_once(cluster.gateway, slow.name, count)
            clients = effort.count(CLIENTS)
            progress(f"http_lost: {clients} clients")
            stuck, answered = await _crowd(cluster.gateway, quick.name, clients, effort.seconds(RUN_S))
    note = f"requests without an answer, of {count} sent at once, most of which are refused; SLO {SLO_MS} ms"
    crowd = f"clients whose last request has no answer, of {clients} in a closed loop; {answered} answers"
    return [
        figure("dataplane.http_lost.at_once", refused, "answers", note, at_most=0),
        figure("dataplane.http_lost.clients", stuck, "clients", crowd, at_most=0),
    ]


async def _at_once(ports: GatewayPorts, model: str, count: int) -> int:
    """Sends requests at the same time. Returns the number of requests without an answer."""
    request = client.request(model, {"X": np.ones((1, graphs.FLOATS), np.float32)}, timeout_us=None)
    async with client.connections(ports, count) as opened:
        replies = [asyncio.ensure_future(connection.ask(request)) for connection in opened]
        done, late = await asyncio.wait(replies, timeout=LOST_S)
        for reply in late:
            reply.cancel()
    return len(late) + sum(reply.result().status == BROKEN for reply in done)


async def _crowd(ports: GatewayPorts, model: str, count: int, seconds: float) -> tuple[int, int]:
    """Runs clients in a closed loop.

    Returns:
        Number of clients whose last request was never answered, and number of answers that all clients got.
    """
    request = client.request(model, {"X": np.ones((1, graphs.FLOATS), np.float32)})
    end_s = time.monotonic() + seconds
    answered = 0

    async def one(connection: Connection) -> bool:
        nonlocal answered
        while time.monotonic() < end_s:
            try:
                reply = await asyncio.wait_for(connection.ask(request), LOST_S)
            except TimeoutError:
                return True
            if reply.status == BROKEN:
                return True
            answered += 1
        return False

    async with client.connections(ports, count) as opened:
        stuck = await asyncio.gather(*(one(connection) for connection in opened))
    return sum(stuck), answered
