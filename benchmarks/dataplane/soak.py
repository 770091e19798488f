"""Soak test: very many requests while workers are killed. It counts wrong answers and measures memory growth.

Every request has a different answer. Half of the clients send to a chain, half to a graph that fans out to a number of
rows that differs between requests. Each task has two workers. One of them is killed from time to time, so that its
calls are retried on the other.
"""

import asyncio
import itertools
import os
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client, graphs
from benchmarks.dataplane.client import BROKEN, OK, Connection
from benchmarks.dataplane.sides import BATCH, SETTINGS
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress, figure
from benchmarks.system import System
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.runtime.dtypes import Array
from jigsaw_triton.servers.installation import find_installation
from jigsaw_triton.servers.process import group_members

REQUESTS = 300_000
CLIENTS = 64
WORKERS = 2
"""Workers of each task; the first of them may be killed."""

KILL_EVERY_S = 4.0
LOOK_EVERY_S = 1.0
GROWTH_GOAL = 0.02

_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


def chain_answer(x: Array) -> Array:
    """Returns the right answer of the chain to a request."""
    return x * 4


def multiples_answer(x: Array) -> Array:
    """Returns the right answer of `graphs.multiples` to a request: several rows."""
    multiples: Array = x * np.arange(1, 2 + int(x[0]) % 5, dtype=np.float32)[:, None] * 2
    return multiples


ANSWERS: Mapping[str, Callable[[Array], Array]] = {"chain": chain_answer, "multiples": multiples_answer}
"""Graph -> function that returns the right answer to a request."""


@dataclass(slots=True)
class Outcomes:
    """Outcomes of requests.

    Attributes:
        total: Number of requests to send.
        sent: Number of requests sent so far.
        wrong: Number of wrong answers.
        failures: Number of requests without an answer.
        reasons: Distinct error messages of failed requests.
        kills: Number of killed workers.
        memory: Samples (requests sent, MiB) of the memory of the gateway and of the workers that are not killed.
    """

    total: int
    sent: int = 0
    wrong: int = 0
    failures: int = 0
    reasons: set[str] = field(default_factory=set)
    kills: int = 0
    memory: list[tuple[int, float]] = field(default_factory=list)


async def measure(progress: Progress, effort: Effort = FULL, requests: int = REQUESTS) -> list[Figure]:
    """Sends this number of requests while workers are killed."""
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        wanted = _wanted(Path(path))
        async with system.system(find_installation(), SETTINGS) as running:
            progress(f"soak: starting {4 * WORKERS} workers")
            await running.deploy(wanted)
            outcomes = Outcomes(effort.count(requests))
            await _soak(running, wanted.cluster.gateway, outcomes, effort.seconds(KILL_EVERY_S), progress)
    return figures(outcomes)


def _wanted(folder: Path) -> Wanted:
    """Returns a deployment whose demand needs WORKERS workers for each task."""
    found = {"chain": graphs.chain(folder, "chain"), "multiples": graphs.multiples(folder, "multiples")}
    rps = 1000.0
    demand = dict.fromkeys(found, (WORKERS - 0.5) * rps)
    rows_per_request = {"chain": 1.0, "multiples": found["multiples"].tasks["first"].variants[0].yields["Y"]}
    profiles = {
        name: ProfileTable(
            (
                system.profile("cpu", "first", "only", BATCH, 1.0, rps),
                system.profile("cpu", "second", "only", BATCH, 1.0, rps * rows),
            )
        )
        for name, rows in rows_per_request.items()
    }
    return Wanted(found, demand, profiles, system.cluster("cpu", 2), latency_model=system.BY_HAND)


async def _soak(
    running: System, ports: GatewayPorts, outcomes: Outcomes, kill_every_s: float, progress: Progress
) -> None:
    victims, kept = _split(running)
    rngs = [np.random.default_rng(number) for number in range(CLIENTS)]
    around = [
        asyncio.create_task(_kill(running, victims, outcomes, kill_every_s)),
        asyncio.create_task(_watch(running, kept, outcomes, progress)),
    ]
    try:
        async with asyncio.TaskGroup() as group:
            for rng, graph in zip(rngs, itertools.cycle(ANSWERS), strict=False):
                group.create_task(_client(ports, graph, rng, outcomes))
    finally:
        for task in around:
            task.cancel()
        await asyncio.gather(*around, return_exceptions=True)
    await running.settled()


def _split(running: System) -> tuple[list[str], list[str]]:
    """Returns the names of the servers that may be killed, one for each task, and of the others.

    Raises:
        ServerError: A task does not have WORKERS workers.
    """
    state = running.controller.state.running
    assert state is not None
    of_task: dict[tuple[str, str], list[str]] = {}
    for worker in state.bundle.workers.values():
        for model in worker.models:
            of_task.setdefault((model.graph, model.task), []).append(worker.name)
    if {len(names) for names in of_task.values()} != {WORKERS}:
        raise ServerError(f"not every task has {WORKERS} workers: {of_task}", where="soak")
    return [names[0] for names in of_task.values()], ["gateway", *(n for names in of_task.values() for n in names[1:])]


async def _client(ports: GatewayPorts, graph: str, rng: np.random.Generator, outcomes: Outcomes) -> None:
    connection: Connection | None = None
    while outcomes.sent < outcomes.total:
        outcomes.sent += 1
        if connection is None or not connection.is_open:
            connection = await client.connect(ports)
        x = (100 * rng.random(graphs.FLOATS)).astype(np.float32)
        reply = await connection.ask(client.request(graph, {"X": x[None]}))
        if reply.status != OK:
            outcomes.failures += 1
            outcomes.reasons.add(reply.text.decode() if reply.status != BROKEN else "connection broken")
        elif reply.tensors != ANSWERS[graph](x).tobytes():
            outcomes.wrong += 1
    if connection is not None:
        connection.close()


async def _kill(running: System, victims: Sequence[str], outcomes: Outcomes, every_s: float) -> None:
    """Kills the victims in turn, if they run."""
    for name in itertools.cycle(victims):
        await asyncio.sleep(every_s)
        server = running.fleet.server(name)
        if server is not None and server.process.returncode is None and server.process.pid is not None:
            os.kill(server.process.pid, signal.SIGKILL)
            outcomes.kills += 1


async def _watch(running: System, kept: Sequence[str], outcomes: Outcomes, progress: Progress) -> None:
    reported = 0
    while True:
        outcomes.memory.append((outcomes.sent, await asyncio.to_thread(_rss_mib, running, kept)))
        if outcomes.sent >= reported + outcomes.total / 10:
            reported = outcomes.sent
            progress(
                f"soak: {outcomes.sent} requests, {outcomes.wrong} wrong answers, {outcomes.failures} failed requests"
            )
        await asyncio.sleep(LOOK_EVERY_S)


def _rss_mib(running: System, names: Sequence[str]) -> float:
    pids = [server.process.pid for name in names if (server := running.fleet.server(name)) is not None]
    pages = 0
    for pid in (member for group in pids if group is not None for member in group_members(group)):
        pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * _PAGE_MIB


def figures(outcomes: Outcomes) -> list[Figure]:
    """Computes the figures from the outcomes."""
    load = f"{CLIENTS} clients over HTTP, {outcomes.kills} workers killed by SIGKILL meanwhile"
    failures = f"{outcomes.failures} failed{': ' if outcomes.reasons else ''}{'; '.join(sorted(outcomes.reasons)[:2])}"
    found = [
        figure(
            "dataplane.swapped_answers",
            outcomes.wrong,
            "answers",
            f"of {outcomes.sent} requests, all with different floats; {load}; {failures}",
            at_most=0,
        )
    ]
    warm, end = (_memory_mib(outcomes, *tenth) for tenth in ((0.1, 0.2), (0.9, 1.0)))
    if warm is not None and end is not None:
        note = (
            f"growth of the RSS of the gateway and of the workers that were not killed, from the second tenth of "
            f"{outcomes.sent} requests to the last, medians; {load}; baseline: MiB in the second tenth"
        )
        name = "dataplane.rss_growth"
        found.append(figure(name, (end - warm) / warm, "share", note, at_most=GROWTH_GOAL, baseline=warm))
    return found


def _memory_mib(outcomes: Outcomes, begin: float, end: float) -> float | None:
    """Returns the median memory while this part of the requests was sent; None if there is no sample."""
    seen = [mib for sent, mib in outcomes.memory if begin * outcomes.total <= sent <= end * outcomes.total]
    return median(seen) if seen else None
