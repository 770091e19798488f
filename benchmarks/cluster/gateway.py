"""The machine of the controller and the gateway is lost under load, and the standby gateway on another one serves.

Clients know both addresses, and use the second one when they cannot connect to the first. Machines are as in `faults`.
"""

import asyncio
import time
from pathlib import Path

from benchmarks.cluster.faults import AFTER_S, BEFORE_S, NODES, deployed, served_s
from benchmarks.dataplane.client import OK
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.gateway import GatewayPorts
from tests.e2e.nodes import STANDBY_ADDRESS, Machines
from tests.e2e.system import System

WORKERS = 14
READY_S = 60.0


class _WithStandby(Machines):
    """Machines of which the last one has the standby gateway."""

    def cluster(self, system: System, gpus: str = "", *, extra: str = "", standby: str = "") -> Path:
        """Writes the cluster.yaml for a deployment; see `Machines.cluster`."""
        return super().cluster(system, gpus, extra=extra, standby=standby or list(self.by_name)[-1])


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Kills all processes of the first machine by their ids while clients send requests all the time."""
    smoke = effort.time_share < 1
    nodes, workers = (NODES[:2], 4) if smoke else (NODES, WORKERS)
    progress(f"deploying {workers} workers on {len(nodes)} machines, with a standby gateway")
    async with deployed(_WithStandby, nodes, workers, forks=smoke) as running:
        await asyncio.to_thread(_wait_ready, running.system)
        system = running.system
        standby = GatewayPorts(system.http, system.grpc, system.metrics, STANDBY_ADDRESS)
        killed_s = 0.0
        began_s = time.monotonic()

        def fault() -> None:
            nonlocal killed_s
            system.kill_all()
            killed_s = time.monotonic() - began_s

        progress("machine of the gateway lost")
        outcomes, at_s = await running.under_load(
            effort.seconds(BEFORE_S + AFTER_S, least_s=8.0), fault, standby=standby
        )
    in_flight = [o for o in outcomes if o.status != OK and o.due_s <= killed_s and o.ended_s >= at_s]
    lost = sum(outcome.status != OK for outcome in outcomes) - len(in_flight)
    after = [outcome for outcome in outcomes if outcome.due_s > killed_s]
    note = (
        f"all processes of the machine of controller and gateway killed; {running.rps:g} requests/s, "
        f"{len(outcomes)} in all, {len(in_flight)} lost in flight there"
    )
    slowest_s = max(outcome.latency_ms for outcome in after) / 1e3
    served = served_s(after, killed_s)
    return [
        figure("cluster.gateway_lost.elsewhere_s", slowest_s, "s", f"slowest answer after the loss; {note}", at_most=2),
        figure("cluster.gateway_lost.served_s", served, "s", f"until 99% meet the SLO; {note}", at_most=2),
        figure("cluster.gateway_lost.lost", lost, "requests", f"beyond those in flight; {note}", at_most=0),
    ]


def _wait_ready(system: System) -> None:
    """Waits until the standby gateway serves what the gateway serves."""
    give_up_at = time.monotonic() + READY_S
    while True:
        standby = system.status()["standby_gateway"]
        if standby["state"] == "ready" and standby["in_line"]:
            return
        if time.monotonic() > give_up_at:
            raise ServerError(f"the standby gateway is not ready: {standby}")
        time.sleep(0.1)
