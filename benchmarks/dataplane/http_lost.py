"""Answers over HTTP that never come: very many at once, and very many clients.

Triton's HTTP front loses answers that come faster than it can hand them to its threads, and their clients wait for
ever. The backend holds answers back meanwhile.
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
from benchmarks.dataplane.effort import FULL, Effort
from benchmarks.dataplane.sides import SETTINGS
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.gpus.model import GatewayPorts
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.servers.installation import find_installation

AT_ONCE = 3000
CLIENTS = 1000
RUN_S = 8.0
PATIENCE_S = 20.0
"""Seconds after which an answer counts as lost."""

SLO_MS, BATCH_MS = 200, 90.0
"""SLO so short, and batches so long, that nearly all requests are refused."""


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Loads a graph that refuses nearly all, and one that answers all."""
    rows = ProfileTable([system.profile("cpu", "work", "only", 1, BATCH_MS, 1000 / BATCH_MS)])
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        slow = graphs.emulated(Path(path), "slow", slo_ms=SLO_MS)
        quick = graphs.chain(Path(path), "quick")
        cluster = system.cluster("cpu")
        beside = sides.one_worker_a_task([quick], cluster)
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
    note = f"of {count} requests sent at once, of which nearly all are refused at once; SLO {SLO_MS} ms"
    crowd = f"of {clients} clients that each send when the last request was answered; {answered} answers"
    return [
        figure("dataplane.http_lost.at_once", refused, "answers", note, at_most=0),
        figure("dataplane.http_lost.clients", stuck, "clients", crowd, at_most=0),
    ]


async def _at_once(ports: GatewayPorts, model: str, count: int) -> int:
    """Requests without an answer, of so many that are sent at the same time."""
    request = client.request(model, {"X": np.ones((1, graphs.FLOATS), np.float32)}, timeout_us=None)
    async with client.connections(ports, count) as opened:
        replies = [asyncio.ensure_future(connection.ask(request)) for connection in opened]
        done, late = await asyncio.wait(replies, timeout=PATIENCE_S)
        for reply in late:
            reply.cancel()
    return len(late) + sum(reply.result().status == BROKEN for reply in done)


async def _crowd(ports: GatewayPorts, model: str, count: int, seconds: float) -> tuple[int, int]:
    """Clients whose last request is never answered, and the answers that all of them got."""
    request = client.request(model, {"X": np.ones((1, graphs.FLOATS), np.float32)})
    end_s = time.monotonic() + seconds
    answered = 0

    async def one(connection: Connection) -> bool:
        nonlocal answered
        while time.monotonic() < end_s:
            try:
                reply = await asyncio.wait_for(connection.ask(request), PATIENCE_S)
            except TimeoutError:
                return True
            if reply.status == BROKEN:
                return True
            answered += 1
        return False

    async with client.connections(ports, count) as opened:
        stuck = await asyncio.gather(*(one(connection) for connection in opened))
    return sum(stuck), answered
