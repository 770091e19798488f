"""Machines that die, are cut off, and are upgraded under load, and a controller that dies.

Each machine is an agent with emulated MIG, real tritonservers and a port of its own; all share this machine's
processors. The models are emulated, so they hold their slices for a time and need little of the processors.
"""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Generic, Protocol, TypeVar

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client
from benchmarks.dataplane.client import OK, Outcome
from benchmarks.effort import Effort
from benchmarks.emulated import chain
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.profiles.read import write_profiles
from jigsaw_triton.profiles.table import ProfileTable
from tests.e2e.nodes import Machines
from tests.e2e.system import System

BOARD = "H100-80GB"
NODES = ("a", "b", "c", "d")
WORKERS = 28
"""Workers of the deployment from nothing: all slices of four boards."""

SLO_MS = 400.0
WORKER_RPS = 20.0
"""Requests a second that a worker carries by its profile."""

PLANNED_RPS = 15.5
"""Requests a second that a plan gives a worker at most, because of queueing."""

LOAD_SHARE = 0.4
"""Part of the planned demand that is sent, so that half of the workers carry it."""

BEFORE_S, AFTER_S, CUT_S = 5.0, 25.0, 60.0
SETTLE_S = 20.0
"""Seconds that the controller has to end servers that run twice."""

IN_SLO, WINDOW_S = 0.99, 1.0
"""Share of the requests of these seconds that must be answered within the SLO, to count as served again."""


class Fleet(Protocol):
    """Machines that a deployment can run on."""

    def start(self) -> None:
        """Starts the machines."""

    def end(self) -> None:
        """Ends the machines, and all that runs there."""

    def cluster(self, system: System, gpus: str, *, extra: str = "") -> Path:
        """Writes the cluster.yaml for a deployment; see `Machines.cluster`."""


F = TypeVar("F", bound=Fleet)


@dataclass(frozen=True, slots=True)
class Running(Generic[F]):
    """A deployment on machines.

    Attributes:
        system: The deployment.
        machines: Machines of the deployment.
        deploy_s: Seconds that the deployment took.
        rps: Requests a second to send.
    """

    system: System
    machines: F
    deploy_s: float
    rps: float

    async def under_load(
        self, seconds: float, fault: Callable[[], None], *, standby: GatewayPorts | None = None
    ) -> tuple[list[Outcome], float]:
        """Sends requests, and causes a fault after some of them.

        Args:
            seconds: Duration of the load.
            fault: Causes the fault, and returns when it is over.
            standby: Gateway to which clients turn when the gateway cannot be reached; None for none.

        Returns:
            Outcomes of the requests, and the second at which the fault began.
        """
        ports = GatewayPorts(self.system.http, self.system.grpc, self.system.metrics)
        request = client.request("bench", {"X": np.ones((1, 16), np.float32)})
        began_s = time.monotonic()
        load = asyncio.create_task(client.poisson(ports, request, self.rps, seconds, Random(1), standby=standby))
        await asyncio.sleep(BEFORE_S if seconds > 2 * BEFORE_S else seconds / 4)
        at_s = time.monotonic() - began_s
        await asyncio.to_thread(fault)
        return await load, at_s


@asynccontextmanager
async def deployed(
    make: Callable[[Path, tuple[str, ...]], F],
    nodes: Sequence[str],
    workers: int,
    *,
    extra: str = "",
    forks: bool = False,
) -> AsyncIterator[Running[F]]:
    """Deploys on machines of one board each, and takes everything down at the end.

    Args:
        make: Function that makes the machines, given a folder and their names.
        nodes: Names of the machines.
        workers: Workers that the demand needs.
        extra: Further line of the cluster's specification.
        forks: True if commands may start faster than those of a user, as in a smoke run.
    """
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        folder = Path(path)
        app = folder / "app"
        profiles = ProfileTable(
            system.profile(BOARD, task, "only", 1, 1000 / WORKER_RPS, WORKER_RPS) for task in ("detect", "classify")
        )
        system.read_graph(app, chain(SLO_MS), {"profiles.csv": write_profiles(profiles.rows())})
        machines, running = make(folder, tuple(nodes)), System(folder / "controller", forks=forks)
        demand_rps = PLANNED_RPS * workers / 2
        cluster = machines.cluster(running, f"{{model: {BOARD}, count: 1}}", extra=extra)
        try:
            machines.start()
            began_s = time.monotonic()
            options = ("--cluster", cluster, "--demand", f"{demand_rps:g}", "--latency-model", system.BY_HAND)
            result = await asyncio.to_thread(running.run, "deploy", app, *options, "--standby", "off", "--detach")
            if result.code != 0:
                raise ServerError(f"the deployment failed: {result.err}")
            deploy_s = time.monotonic() - began_s
            yield Running(running, machines, deploy_s, LOAD_SHARE * demand_rps)
        finally:
            await asyncio.shield(asyncio.to_thread(_end, running, machines))


def _end(running: System, machines: Fleet) -> None:
    running.run("down")
    machines.end()


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Deploys on all slices, then on half of them, where one fault follows the other. A smoke run deploys once."""
    smoke = effort.time_share < 1
    nodes, workers = (NODES[:2], 4) if smoke else (NODES, WORKERS)
    figures = []
    if not smoke:
        progress(f"deploying {workers} workers on {len(nodes)} machines")
        async with deployed(Machines, nodes, workers) as running:
            figures.append(_deploy(running))
    # A machine that is lost does not come back, so this is the last fault.
    parts: list[Callable[[Running[Machines], Effort], Awaitable[list[Figure]]]]
    parts = [_controller_lost, _partition, _rolling, _node_lost]
    async with deployed(Machines, nodes, workers // 2, extra="survive: node", forks=smoke) as running:
        if smoke:
            figures.append(_deploy(running))
        for part in parts:
            progress(part.__name__.strip("_").replace("_", " "))
            figures += await part(running, effort)
            await asyncio.to_thread(running.system.run, "status", "--wait", "ready", "--timeout", "60")
    return figures


def _deploy(running: Running[Machines]) -> Figure:
    count, machines = len(running.system.status()["workers"]), len(running.machines.by_name)
    note = f"{count} workers on {machines} machines, from the command to the first answer; agents run already"
    return figure("cluster.deploy_s", running.deploy_s, "s", note, at_most=60)


async def _node_lost(running: Running[Machines], effort: Effort) -> list[Figure]:
    victim = running.machines.by_name[running.system.status()["workers"][0]["node"]]
    outcomes, at_s = await running.under_load(effort.seconds(BEFORE_S + AFTER_S, least_s=12.0), victim.kill)
    after = [outcome for outcome in outcomes if outcome.due_s >= at_s]
    note = f"all processes of a machine killed; {running.rps:g} requests/s, {len(outcomes)} in all"
    slowest_s = max(outcome.latency_ms for outcome in after) / 1e3
    lost = sum(outcome.status != OK for outcome in outcomes)
    return [
        figure("cluster.node_lost.elsewhere_s", slowest_s, "s", f"slowest answer after the fault; {note}", at_most=2),
        figure("cluster.node_lost.served_s", served_s(after, at_s), "s", f"until 99% meet the SLO; {note}", at_most=8),
        figure("cluster.node_lost.lost", lost, "requests", note, at_most=0),
    ]


async def _controller_lost(running: Running[Machines], effort: Effort) -> list[Figure]:
    def fault() -> None:
        os.kill(running.system.controller_pid(), signal.SIGKILL)

    outcomes, _ = await running.under_load(effort.seconds(BEFORE_S + AFTER_S, least_s=6.0), fault)
    lost = sum(outcome.status != OK for outcome in outcomes)
    note = f"kill -9 of the controller; {len(outcomes)} requests"
    return [figure("cluster.controller_lost", lost, "requests", note, at_most=0)]


async def _partition(running: Running[Machines], effort: Effort) -> list[Figure]:
    cut_s = effort.seconds(CUT_S, least_s=6.0)
    name = running.system.status()["workers"][0]["node"]
    machine = running.machines.by_name[name]

    def fault() -> None:
        machine.freeze()
        time.sleep(cut_s)
        machine.thaw()

    last = running.system.last_event()
    outcomes, _ = await running.under_load(BEFORE_S + cut_s + effort.seconds(AFTER_S, least_s=6.0), fault)
    await asyncio.to_thread(running.system.wait_event, f"node {name} is back", after=last)
    twice = await asyncio.to_thread(_unknown, running, name)
    lost = sum(outcome.status != OK for outcome in outcomes)
    note = f"all processes of a machine stopped for {cut_s:g} s; {len(outcomes)} requests"
    return [
        figure("cluster.partition.twice", twice, "servers", f"servers started twice or left; {note}", at_most=0),
        figure("cluster.partition.lost", lost, "requests", note, at_most=0),
    ]


def _unknown(running: Running[Machines], name: str) -> int:
    """Returns the servers of a machine that the controller does not know, once it has had time to end them."""
    give_up_at = time.monotonic() + SETTLE_S
    while True:
        known = {worker["name"] for worker in running.system.status()["workers"] if worker["node"] == name}
        unknown = running.machines.by_name[name].servers().keys() - known
        if not unknown or time.monotonic() > give_up_at:
            return len(unknown)
        time.sleep(0.2)


async def _rolling(running: Running[Machines], effort: Effort) -> list[Figure]:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fault() -> None:
        for machine in effort.some(tuple(running.machines.by_name.values())):
            for command in ("drain", "uncordon"):
                result = running.system.run("node", command, machine.name)
                if result.code != 0:
                    raise ServerError(f"node {command} {machine.name}: {result.err}")
                if command == "drain":
                    machine.end_agent(signal.SIGTERM)
                    machine.start()
        loop.call_soon_threadsafe(ended.set)

    outcomes: list[Outcome] = []
    upgrade = asyncio.create_task(asyncio.to_thread(fault))
    while not ended.is_set() and not upgrade.done():
        found, _ = await running.under_load(effort.seconds(AFTER_S, least_s=5.0), lambda: None)
        outcomes += found
    await upgrade
    failed = sum(outcome.status != OK for outcome in outcomes)
    note = f"each machine drained, its agent restarted, and returned, one after the other; {len(outcomes)} requests"
    return [figure("cluster.rolling", failed, "requests", note, at_most=0)]


def served_s(after: Sequence[Outcome], at_s: float) -> float:
    """Returns the seconds from a fault until requests meet their SLO for good; to the last request if they never do.

    Args:
        after: Outcomes of the requests since the fault.
        at_s: Second of the fault.
    """
    ordered = sorted(after, key=lambda outcome: outcome.due_s)
    served = ordered[-1].due_s
    for first in reversed(ordered):
        window = [outcome for outcome in ordered if first.due_s <= outcome.due_s < first.due_s + WINDOW_S]
        good = sum(outcome.status == OK and outcome.latency_ms <= SLO_MS for outcome in window)
        if good < IN_SLO * len(window):
            break
        served = first.due_s
    return served - at_s
