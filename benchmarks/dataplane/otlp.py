"""A deployment that exports the traces of 1% of its requests, relative to the same deployment without any.

The deployment has a chain of two models. perf_analyzer loads it over gRPC. Between the runs, the export is turned on
and off, as `deploy --otlp` does; the receiver, on the same machine, reads each message and accepts it. The figures
compare consecutive runs, whose order changes from round to round. The processor time of a request depends less than
the rate on what else the machine does.

On a shared machine, consecutive runs differ by more than the export of 1% costs. So a third kind of run exports 10%. As
each exported trace costs the same, a tenth of the time that this adds to a request is what 1% adds.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from aiohttp import web

from benchmarks import system
from benchmarks.dataplane import graphs, sides
from benchmarks.dataplane.compare import clients, ratio
from benchmarks.dataplane.sides import Side
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.controller.core.arrivals import arrived
from jigsaw_triton.gpus.gateway import Otlp
from jigsaw_triton.servers.installation import find_installation
from jigsaw_triton.servers.os_process import processor_s
from jigsaw_triton.servers.perf_analyzer import find_perf_analyzer

RUN_S = 4.0
WARM_UP_S = 1.5
LOOK_S = 0.5
"""Seconds between two looks at the processor time of the process that exports, until it has started."""

CLIENTS = 32
ROUNDS = 6
"""Rounds for each round of the effort: a run differs by more from the next than the export costs."""

IMPORTS_S, IDLE_S = 0.03, 0.015
"""Processor time in seconds that the process that exports takes to start, at least, and between two looks once it has
nothing to do, at most. The kernel counts in steps of 0.01 s."""

SIDES = {"sampled": 0.01, "ten times": 0.1, "none": 0.0}
"""Name of a side -> share of the requests whose traces are exported; 0 without an export."""

GOAL = 0.97
PROCESSOR_GOAL = 1.03

_WITHOUT = "the same deployment without an export"


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement.

    Attributes:
        rps: Answers per second.
        request_us: Processor time of all servers and of the export for a request, in microseconds.
    """

    rps: float
    request_us: float


Runs = Mapping[str, Sequence[Run]]
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
        for _ in range(effort.warm_ups):
            await _run(side, analyzer, folder, WARM_UP_S)
        runs: dict[str, list[Run]] = {}
        for number in range(effort.rounds * (ROUNDS if effort is FULL else 1)):
            progress(f"round {number + 1}: {clients(CLIENTS)}")
            for name, share in SIDES.items() if number % 2 else reversed(SIDES.items()):
                await side.fleet.traces.configure(Otlp(endpoint, share) if share else None)
                # The gateway reads the share four times a second.
                await asyncio.sleep(LOOK_S)
                await _idle(side)
                runs.setdefault(name, []).append(await _run(side, analyzer, folder, effort.seconds(RUN_S)))
        await side.fleet.traces.configure(None)
    return figures(runs)


async def _run(side: Side, analyzer: Path, folder: Path, seconds: float) -> Run:
    """Loads the graph once."""
    pid = side.fleet.traces.pid
    exporter = () if pid is None else (pid,)
    count, used_s = await _arrivals(side), side.cpu_s() + processor_s(exporter)
    measured = await asyncio.to_thread(side.load, analyzer, folder, CLIENTS, seconds)
    count, used_s = await _arrivals(side) - count, side.cpu_s() + processor_s(exporter) - used_s
    return Run(measured.throughput_rps, 1e6 * used_s / max(count, 1.0))


async def _idle(side: Side) -> None:
    """Waits until the process that exports, if there is one, has started, and has nothing to do."""
    used_s, before_s = 0.0, -1.0
    while (pid := side.fleet.traces.pid) is not None and (used_s < IMPORTS_S or used_s - before_s > IDLE_S):
        await asyncio.sleep(LOOK_S)
        used_s, before_s = processor_s((pid,)), used_s


async def _arrivals(side: Side) -> float:
    """Returns the number of requests that have arrived at the graph so far."""
    gateway = side.fleet.server(side.fleet.GATEWAY)
    assert gateway is not None
    return arrived(await gateway.client.metrics()).get(side.graph.name, 0.0)


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
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def figures(runs: Runs) -> list[Figure]:
    """Computes the figures from the runs."""
    rps = {name: [run.rps for run in side] for name, side in runs.items()}
    more = SIDES["ten times"] / SIDES["sampled"]
    derived_rps = [
        1.0 / (1.0 / none + (1.0 / ten - 1.0 / none) / more)
        for ten, none in zip(rps["ten times"], rps["none"], strict=True)
    ]
    added = [one.request_us / other.request_us for one, other in zip(runs["sampled"], runs["none"], strict=True)]
    note = f"median of {len(added)} rounds, {spread(added)}; baseline: {_WITHOUT}, us of processor time for a request"
    baseline_us = median(run.request_us for run in runs["none"])
    baseline = f"{_WITHOUT}, requests/s"
    return [
        ratio("console.otlp_cost", rps["sampled"], rps["none"], baseline, GOAL),
        ratio("console.otlp_cost.derived", derived_rps, rps["none"], f"{baseline}; from runs that export 10%", GOAL),
        figure(
            "console.otlp_cost.processor",
            median(added),
            "ratio",
            note,
            at_most=PROCESSOR_GOAL,
            baseline=baseline_us,
        ),
    ]
