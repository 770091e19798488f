"""A deployment that exports the traces of 1% of its requests, relative to the same deployment without any.

The deployment has a chain of two models. perf_analyzer loads it over gRPC. Between the runs, the export is turned on
and off, as `deploy --otlp` does; the receiver, on the same machine, reads each message and accepts it. The figure
compares consecutive runs, whose order changes from round to round.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aiohttp import web

from benchmarks import system
from benchmarks.dataplane import graphs, sides
from benchmarks.dataplane.compare import clients, rates
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.evaluation.load import Measured
from jigsaw_triton.gpus.model import Otlp
from jigsaw_triton.servers.installation import find_installation
from jigsaw_triton.servers.perf_analyzer import find_perf_analyzer

RUN_S = 3.0
WARM_UP_S = 1.5
CLIENTS = 32
ROUNDS = 4
"""Rounds for each round of the effort: a run differs by more from the next than the export costs."""

SHARES = {"all": 1.0, "sampled": 0.01, "none": None}
"""Side -> share of the requests whose traces are exported; None without an export."""

GOAL = 0.97

Runs = Mapping[str, Sequence[Measured]]
"""Side -> one measurement for each round."""


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Starts the deployment, loads it with and without the export in turn, and compares."""
    installation, analyzer = find_installation(), find_perf_analyzer()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jigsaw-bench-")))
        progress("starting a deployment, and a receiver of traces")
        wanted = sides.one_worker_per_task([graphs.chain(folder, "chain")], system.cluster("cpu", 2))
        side = (await stack.enter_async_context(sides.behind_gateway(installation, wanted)))["chain"]
        endpoint = await stack.enter_async_context(_receiver())

        async def load(seconds: float) -> Measured:
            return await asyncio.to_thread(side.load, analyzer, folder, CLIENTS, seconds)

        for _ in range(effort.warm_ups):
            await load(WARM_UP_S)
        runs: dict[str, list[Measured]] = {}
        for number in range(effort.rounds * (ROUNDS if effort is FULL else 1)):
            progress(f"round {number + 1}: {clients(CLIENTS)}")
            for name in SHARES if number % 2 else reversed(SHARES):
                share = SHARES[name]
                await _export(side.fleet, Otlp(endpoint, share) if share is not None else None)
                runs.setdefault(name, []).append(await load(effort.seconds(RUN_S)))
        await _export(side.fleet, None)
    return figures(runs)


async def _export(fleet: Fleet, otlp: Otlp | None) -> None:
    await fleet.traces.configure(otlp)
    # The gateway reads the share four times a second, and the process needs a moment to start.
    await asyncio.sleep(1.0)


@asynccontextmanager
async def _receiver() -> AsyncIterator[str]:
    """Runs a receiver that reads and accepts all messages. Yields its endpoint."""

    async def accept(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    app = web.Application(client_max_size=2**30)
    app.router.add_post("/v1/traces", accept)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def figures(runs: Runs) -> list[Figure]:
    """Computes the figures from the runs."""
    without = "the same deployment without an export, requests/s"
    return [
        rates("console.otlp_cost", runs["sampled"], runs["none"], without, GOAL),
        rates("console.otlp_cost.all", runs["all"], runs["none"], f"{without}; at most 500 requests/s are sampled"),
    ]
