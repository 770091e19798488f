"""Model processes that hang, are slow or die under load: counts swapped answers, and measures the recovery.

Each request has different floats, so each answer shows which request it belongs to. Triton stops waiting for the
process of a Python model that hangs, and a late result of the process may become the answer to the next request.
"""

import asyncio
import itertools
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client, graphs
from benchmarks.dataplane.client import BROKEN, OK, Connection
from benchmarks.dataplane.sides import BATCH, SETTINGS
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress, figure
from benchmarks.system import System
from jigsaw_triton.compiler.service import MIN_CALL_DEADLINE_MS
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.servers.installation import find_installation
from jigsaw_triton.servers.process import group_members

FAULTS = 200
CLIENTS = 16
WORKERS = 2
"""Workers of each task."""

PAUSE_S = 1.5
"""Mean time between two faults."""

KINDS: Mapping[str, tuple[float, float]] = {"hang": (1.5, 3.0), "slow": (0.1, 1.0), "kill": (0.0, 0.0)}
"""Kind of fault -> shortest and longest time in seconds for which a model's process is stopped; 0 for a kill."""

HANG_GOAL = 3.0
"""Goal for the time from a request that hangs until others are served again, as a multiple of the call deadline."""

WAIT_LIMIT_S = 60.0


@dataclass(slots=True)
class Outcomes:
    """Outcomes of requests.

    Attributes:
        sent: Number of requests sent.
        wrong: Number of answers that belong to another request.
        unanswered: Number of requests without any answer.
        statuses: HTTP status -> number of answers.
        faults: Kind of fault -> number of faults.
        longest_s: Longest time until an answer of any kind, in seconds.
    """

    sent: int = 0
    wrong: int = 0
    unanswered: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Loads a chain while its model processes hang, are slow and die. Then sends one request that hangs."""
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        wanted = _wanted(Path(path))
        async with system.system(find_installation(), SETTINGS) as running:
            progress(f"hangs: starting {2 * WORKERS + WORKERS} workers")
            await running.deploy(wanted)
            outcomes = Outcomes()
            count = max(len(KINDS), effort.count(FAULTS))
            await _under_faults(running, wanted.cluster.gateway, outcomes, count, progress)
            progress("hangs: one request that hangs")
            back_s = await _hang(running, wanted.cluster.gateway)
    faults = ", ".join(f"{count} {kind}" for kind, count in outcomes.faults.items())
    statuses = ", ".join(f"{count} of status {status}" for status, count in outcomes.statuses.items())
    note = (
        f"answers to another request; {CLIENTS} clients; faults: {faults}; {outcomes.sent} requests; "
        f"answers: {statuses}; {outcomes.unanswered} without an answer; longest {outcomes.longest_s:.1f} s"
    )
    deadline_s = MIN_CALL_DEADLINE_MS / 1000
    return [
        figure("dataplane.wrong", outcomes.wrong, "answers", note, at_most=0),
        figure(
            "dataplane.hang_s",
            back_s,
            "s",
            f"from a request whose model sleeps for a minute until {WORKERS} workers serve others again; call deadline "
            f"{deadline_s:g} s",
            at_most=HANG_GOAL * deadline_s,
        ),
    ]


def _wanted(folder: Path) -> Wanted:
    """Returns a deployment of a chain, and of a graph whose model sleeps on a certain input."""
    found = {"chain": graphs.chain(folder, "chain", slo_ms=5000), "sleeper": graphs.sleeper(folder, "sleeper")}
    rps = 1000.0
    rows = {
        name: ProfileTable(system.profile("cpu", task, "only", BATCH, 1.0, rps) for task in graph.tasks)
        for name, graph in found.items()
    }
    demand = dict.fromkeys(found, (WORKERS - 0.5) * rps)
    return Wanted(found, demand, rows, system.cluster("cpu", 2), latency_model=system.BY_HAND)


async def _under_faults(
    running: System, ports: GatewayPorts, outcomes: Outcomes, count: int, progress: Progress
) -> None:
    faults = asyncio.create_task(_faults(running, count, outcomes, progress))
    rngs = [np.random.default_rng(number) for number in range(CLIENTS)]
    try:
        await asyncio.gather(*(_client(ports, rng, outcomes, faults) for rng in rngs))
    finally:
        faults.cancel()
        await asyncio.gather(faults, return_exceptions=True)
    await running.settled()


async def _client(ports: GatewayPorts, rng: np.random.Generator, outcomes: Outcomes, until: asyncio.Task[None]) -> None:
    connection: Connection | None = None
    while not until.done():
        if connection is None or not connection.is_open:
            connection = await client.connect(ports)
        x = (100 * rng.random(graphs.FLOATS)).astype(np.float32)
        outcomes.sent += 1
        began_s = time.monotonic()
        try:
            reply = await asyncio.wait_for(connection.ask(client.request("chain", {"X": x[None]})), WAIT_LIMIT_S)
        except TimeoutError:
            outcomes.unanswered += 1
            connection.close()
            continue
        outcomes.longest_s = max(outcomes.longest_s, time.monotonic() - began_s)
        outcomes.statuses[reply.status] += 1
        if reply.status == OK and reply.tensors != (4 * x).tobytes():
            outcomes.wrong += 1
        if reply.status == BROKEN:
            await asyncio.sleep(0.1)
    if connection is not None:
        connection.close()


async def _faults(running: System, count: int, outcomes: Outcomes, progress: Progress) -> None:
    """Stops and kills random processes of the chain's models at random times, with each kind of fault in turn."""
    rng = Random(1)
    for number, kind in zip(range(count), itertools.cycle(KINDS), strict=False):
        await asyncio.sleep(rng.expovariate(1 / PAUSE_S))
        stubs = _stubs(running)
        if not stubs:
            continue
        pid = rng.choice(stubs)
        outcomes.faults[kind] += 1
        if kind == "kill":
            _send(pid, signal.SIGKILL)
            continue
        _send(pid, signal.SIGSTOP)
        await asyncio.sleep(rng.uniform(*KINDS[kind]))
        _send(pid, signal.SIGCONT)
        if number % 20 == 0:
            progress(f"hangs: {number} faults, {outcomes.sent} requests, {outcomes.wrong} wrong answers")


def _stubs(running: System) -> list[int]:
    """Returns the process ids of the models of the chain's workers."""
    state = running.controller.state
    names = [w.name for w in state.actual.workers.values() if any(m.graph == "chain" for m in w.models)]
    servers = [server for name in names if (server := running.fleet.server(name)) is not None]
    leaders = [server.process.pid for server in servers if server.process.pid is not None]
    return [pid for leader in leaders for pid in group_members(leader) if pid != leader and _is_stub(pid)]


def _is_stub(pid: int) -> bool:
    try:
        return "triton_python_backend_stub" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


async def _hang(running: System, ports: GatewayPorts) -> float:
    """Returns the seconds from sending a request that hangs until all workers serve other requests again."""
    hanging = client.request("sleeper", {"X": np.full((1, graphs.FLOATS), graphs.SLEEPS, np.float32)})
    plain = client.request("sleeper", {"X": np.ones((1, graphs.FLOATS), np.float32)})
    async with client.connections(ports, 1 + 2 * WORKERS) as (first, *others):
        # Let every worker answer first, so that its calls have their usual deadline.
        for _ in range(20):
            await asyncio.gather(*(connection.ask(plain) for connection in others))
        began_s = time.monotonic()
        lost = asyncio.ensure_future(first.ask(hanging))
        await asyncio.sleep(0.2)
        while time.monotonic() < began_s + WAIT_LIMIT_S:
            replies = await asyncio.gather(*(connection.ask(plain) for connection in others))
            if lost.done() and all(reply.status == OK for reply in replies):
                break
            await asyncio.sleep(0.01)
        back_s = time.monotonic() - began_s
        lost.cancel()
    await running.settled()
    return back_s
