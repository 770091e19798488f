"""Time until the next controller is in charge, and until the next gateway answers, after kill -9 under load."""

import asyncio
import signal
import time
from statistics import median

from benchmarks.controller.callers import CLIENTS, Outcomes, callers
from benchmarks.controller.replans import TARGETS
from benchmarks.controller.supervised import Supervised, is_settled, kill, supervised
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.errors import ServerError

KILLS = 5
PAUSE_S = 0.02
"""Seconds that a client waits after an answer, and so the resolution of the gateway's time."""

_STANDBY_S = 35.0
"""Seconds that a deployment serves before its controller dies, so that the controller has its standby."""

_CALM_S = 10.0
"""Seconds from the next controller's start until the gateway dies."""


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Kills the controller and then the gateway of several deployments."""
    kills, takeovers_s, gateways_s, lost, sent = max(1, effort.count(KILLS)), [], [], 0, 0
    for _ in range(kills):
        # The second death of a gateway within minutes would be followed by a backoff.
        async with supervised() as running:
            await asyncio.to_thread(running.update, TARGETS[0])
            with callers(running.url, PAUSE_S) as outcomes:
                takeovers_s.append(await _takeover_s(running, progress, effort))
                lost, sent = lost + len(outcomes.failures), sent + outcomes.sent
                gateways_s.append(await _gateway_s(running, outcomes, progress, effort))
    load = f"{CLIENTS} gRPC clients"
    return [
        figure(
            "controller.takeover_s",
            median(takeovers_s),
            "s",
            f"median of {kills}, {spread(takeovers_s)}; kill -9 of the controller to the answer of the next one",
            at_most=2.0,
        ),
        figure("controller.takeover_lost", lost, "requests", f"of {sent} of {load}, during {kills} kills", at_most=0),
        figure(
            "controller.gateway_back_s",
            median(gateways_s),
            "s",
            f"median of {kills}, {spread(gateways_s)}; kill -9 of the gateway to the answer to a request sent after it",
            at_most=1.5,
        ),
    ]


async def _takeover_s(running: Supervised, progress: Progress, effort: Effort) -> float:
    """Kills the controller. Returns the seconds until the next one answers."""
    await asyncio.sleep(effort.seconds(_STANDBY_S))
    before = await asyncio.to_thread(running.controller)
    if before is None or not kill(before, signal.SIGKILL):
        raise ServerError("no controller runs", where="takeover")

    def in_charge() -> bool:
        status = running.status()
        return status is not None and status["controller"]["pid"] != before and status["serving"]

    took_s = await running.wait(in_charge, "the next controller")
    progress(f"takeover: {took_s:.2f} s")
    return took_s


async def _gateway_s(running: Supervised, outcomes: Outcomes, progress: Progress, effort: Effort) -> float:
    """Kills the gateway. Returns the seconds until a request is answered that was sent after that."""
    await running.wait(lambda: is_settled(running.status()), "ready")
    await asyncio.sleep(effort.seconds(_CALM_S))
    kill(running.servers()["gateway"], signal.SIGKILL)
    killed_s = time.monotonic()
    await running.wait(lambda: outcomes.answered_s[0] > killed_s, "the next answer")
    progress(f"gateway: {outcomes.answered_s[1] - killed_s:.2f} s")
    return outcomes.answered_s[1] - killed_s
