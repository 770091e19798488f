"""Server of the web console: its cost in processor time, and the time of a what-if plan.

The console serves a stand-in for its pages here: what browsers do is not measured.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from statistics import median
from typing import Any

import aiohttp

from benchmarks import problems
from benchmarks.console.deployed import START_S, Deployed, deployed
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.console.web.planners import PlannerProcess
from jigsaw_triton.controller.core.generation import Generation, Wanted
from jigsaw_triton.controller.persistence.checkpoint import VERSION, pickled
from jigsaw_triton.planner.domain.problem import Options
from jigsaw_triton.planner.search.solve import make_plan
from jigsaw_triton.servers.os_process import processor_s

GPUS = 120
PAGES = 5
COST_S = 60.0
"""Seconds over which processor time is measured, with pages and without."""

RPS = 20.0
"""Requests a second during the measurement, so that pages have something to show."""

GOAL_WHAT_IF_S, GOAL_COST = 1.0, 0.05
SLIDER = (0.5, 0.7, 0.9, 1.05, 1.2)
"""Demands that a slider asks for, as multiples of the planned demand."""

SEED = 2603
_SETTLE_S = 5.0


class OneGeneration:
    """A journal with one generation.

    Args:
        generation: The generation.
    """

    def __init__(self, generation: Generation) -> None:
        self._state = VERSION, pickled(generation)

    def generation_state(self, number: int) -> tuple[str, bytes]:
        """Returns the version and the state of the generation, whatever its number."""
        return self._state


async def what_if(progress: Progress, effort: Effort, gpus: int = GPUS) -> Figure:
    """Measures the time from the question to the answer, in a process that has answered before."""
    seconds: list[float] = []
    for round_ in range(effort.rounds):
        problem = problems.fan_out_problem(random.Random(SEED + round_), gpus)
        (workload,) = problem.workloads
        name = workload.graph.name
        wanted = Wanted({name: workload.graph}, {name: workload.demand_rps}, problem.profiles, problem.cluster)
        plan = make_plan(problem, Options())
        process = PlannerProcess(OneGeneration(Generation(wanted, plan, Bundle(1, {}, {}))), START_S)
        try:
            await process.ask("what_if", 1, {})
            for scale in SLIDER:
                began = time.monotonic()
                answer = await process.ask("what_if", 1, {"demand": {name: scale * workload.demand_rps}})
                seconds.append(time.monotonic() - began)
                progress(f"what-if on {gpus} GPUs, {scale:g} x demand: {seconds[-1]:.2f} s, {answer['slices']} slices")
        finally:
            process.close()
    note = f"largest of {len(seconds)} on {gpus} GPUs, three tasks; median {median(seconds):.3g}, {spread(seconds)}"
    return figure("console.whatif_s", max(seconds), "s", note, at_most=GOAL_WHAT_IF_S)


async def cost(progress: Progress, effort: Effort) -> list[Figure]:
    """Measures the processor time of the controller and of the console, with pages open and without."""
    async with deployed(2 * RPS, pages=False) as found:
        return await cost_of(found, progress, effort)


async def cost_of(found: Deployed, progress: Progress, effort: Effort) -> list[Figure]:
    """Measures the processor time of a deployment's controller and console."""
    controller, console = int(found.deployment.status()["controller"]["pid"]), found.console
    seconds = effort.seconds(COST_S)
    async with aiohttp.ClientSession() as session, _load(session, found.http):
        # The start of the console is not part of its cost.
        await asyncio.to_thread(found.url)
        await asyncio.sleep(min(_SETTLE_S, seconds))
        alone = await _shares((controller, console), seconds)
        progress(f"no pages: controller {alone[0]:.2%}, console {alone[1]:.2%} of a core")
        received = [0] * PAGES
        pages = [asyncio.create_task(_page(found, received, n)) for n in range(PAGES)]
        try:
            deadline = time.monotonic() + START_S
            while not all(received):
                if time.monotonic() > deadline:
                    raise TimeoutError("a page got nothing")
                await asyncio.sleep(0.05)
            opened = await _shares((controller, console), seconds)
        finally:
            for page in pages:
                page.cancel()
            await asyncio.gather(*pages, return_exceptions=True)
    progress(f"{PAGES} pages: controller {opened[0]:.2%}, console {opened[1]:.2%} of a core")
    more = [after - before for before, after in zip(alone, opened, strict=True)]
    note = (
        f"share of a core, {PAGES} pages over none, {seconds:g} s each at {RPS:g} requests/s: "
        f"controller {more[0]:.2%}, console {more[1]:.2%}; {sum(received) / 1024 / PAGES / seconds:.2g} KiB/s a page"
    )
    return [
        figure("console.cost", sum(more), "share", note, at_most=GOAL_COST),
        figure("console.cost.controller", more[0], "share", "the controller's part of console.cost"),
    ]


async def _shares(pids: Sequence[int], seconds: float) -> list[float]:
    """Returns the share of a core that each process uses."""
    before, began = [processor_s([pid]) for pid in pids], time.monotonic()
    await asyncio.sleep(seconds)
    elapsed = time.monotonic() - began
    return [(processor_s([pid]) - start) / elapsed for pid, start in zip(pids, before, strict=True)]


async def _page(found: Deployed, received: list[int], number: int) -> None:
    """Opens a page in a browser of its own, and counts the bytes that it gets."""
    url = await asyncio.to_thread(found.url)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.get(url) as response:
            response.raise_for_status()
        async with session.get(f"{url.partition('/login')[0]}/api/stream") as stream:
            async for chunk in stream.content.iter_any():
                received[number] += len(chunk)


@asynccontextmanager
async def _load(session: aiohttp.ClientSession, http: int) -> AsyncIterator[None]:
    """Sends requests at a constant rate inside the `with` block."""
    values = {"name": "VALUES", "datatype": "FP32", "shape": [1, 16], "data": [1.0] * 16}

    async def ask() -> None:
        with suppress(aiohttp.ClientError):
            async with session.post(f"http://127.0.0.1:{http}/v2/models/hello/infer", json={"inputs": [values]}) as r:
                await r.read()

    async def send() -> None:
        asked: set[asyncio.Task[None]] = set()
        while True:
            task = asyncio.create_task(ask())
            asked.add(task)
            task.add_done_callback(asked.discard)
            await asyncio.sleep(1 / RPS)

    sender: asyncio.Task[Any] = asyncio.create_task(send())
    try:
        yield
    finally:
        sender.cancel()
        with suppress(asyncio.CancelledError):
            await sender


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Measures all figures."""
    return [await what_if(progress, effort), *await cost(progress, effort)]
