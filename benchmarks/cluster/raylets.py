"""Raylets as machines: a deployment whose agents Ray starts, and the loss of Ray's control store under load.

All raylets share this machine's processors. Each has an agent with emulated MIG and real tritonservers.
"""

from benchmarks.cluster.faults import AFTER_S, BEFORE_S, NODES, WORKERS, deployed
from benchmarks.dataplane.client import OK
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure
from tests.e2e.raylets import Raylets

_LEAST_S = 20.0
"""Seconds of load that cover the start of Ray on a slow machine."""


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Deploys on raylets, kills the control store with the raylets that it takes along, and starts all of Ray again."""
    smoke = effort.time_share < 1
    nodes, workers = (NODES[:1], 2) if smoke else (NODES, WORKERS)
    progress(f"deploying {workers} workers on {len(nodes)} raylets")
    async with deployed(Raylets, nodes, workers, forks=smoke) as running:
        count = len(running.system.status()["workers"])
        note = f"{count} workers on {len(nodes)} raylets, from the command to the first answer; Ray starts the agents"
        figures = [figure("cluster.deploy_s.ray", running.deploy_s, "s", note, at_most=60)]
        raylets = running.machines

        def fault() -> None:
            raylets.kill_gcs()
            raylets.kill(*nodes)
            raylets.start()

        progress("control store lost")
        outcomes, _ = await running.under_load(effort.seconds(BEFORE_S + AFTER_S, least_s=_LEAST_S), fault)
        lost = sum(outcome.status != OK for outcome in outcomes)
        note = f"kill -9 of the GCS and all raylets, and another Ray; {len(outcomes)} requests"
        return [*figures, figure("cluster.gcs_lost", lost, "requests", note, at_most=0)]
