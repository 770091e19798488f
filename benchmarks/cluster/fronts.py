"""Cells behind a front: how evenly requests are balanced, and what is lost with a cell.

Each cell has a controller, a gateway and emulated models on a board of its own; all share this machine's processors.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import numpy as np
import tritonclient.grpc.aio as triton

from benchmarks import system
from benchmarks.cluster.faults import BOARD, PLANNED_RPS, SLO_MS, WORKER_RPS
from benchmarks.dataplane import client
from benchmarks.dataplane.client import OK, Outcome
from benchmarks.effort import Effort
from benchmarks.emulated import chain
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.profiles.read import write_profiles
from jigsaw_triton.profiles.table import ProfileTable
from tests.e2e.cells import FrontedCells

WEIGHTS = (0.5, 0.3, 0.2)
"""Weights of the cells. They differ from the planned ones, which are equal."""

SMOKE_WEIGHTS = (0.6, 0.4)
WORKERS, SMOKE_WORKERS = 4, 2
"""Workers of each cell."""

LOAD_SHARE = 0.9
"""Part of the planned demand of one cell that is sent, so that the other cells carry it without that one."""

BALANCE_S, BEFORE_S, AFTER_S = 30.0, 5.0, 25.0
GRPC_CLIENTS = 4

MODEL = "bench"
ROW = np.ones((1, 16), np.float32)


@asynccontextmanager
async def deployed(weights: tuple[float, ...], demand_rps: float) -> AsyncIterator[FrontedCells]:
    """Deploys cells and a front over them, and takes everything down at the end.

    Args:
        weights: Weight of each cell.
        demand_rps: Requests per second that each cell is planned for.
    """
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        folder = Path(path)
        profiles = ProfileTable(
            system.profile(BOARD, task, "only", 1, 1000 / WORKER_RPS, WORKER_RPS) for task in ("detect", "classify")
        )
        system.read_graph(folder / "app", chain(SLO_MS), {"profiles.csv": write_profiles(profiles.rows())})
        cells = FrontedCells(folder, len(weights), BOARD)
        try:
            await asyncio.to_thread(_start, cells, folder / "app", weights, demand_rps)
            yield cells
        finally:
            await asyncio.shield(asyncio.to_thread(cells.end))


def _start(cells: FrontedCells, app: Path, weights: tuple[float, ...], demand_rps: float) -> None:
    model = ("--latency-model", system.BY_HAND)
    cells.create(app, len(weights) * demand_rps, *model)
    for entry, weight in zip(cells.entries, weights, strict=True):
        entry["weights"] = {MODEL: weight}
    cells.front.write(cells.entries)
    cells.deploy(*model, "--standby", "off")
    cells.front.start()


async def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Deploys cells, sends requests by both protocols, and kills one cell under load."""
    smoke = effort.time_share < 1
    weights, workers = (SMOKE_WEIGHTS, SMOKE_WORKERS) if smoke else (WEIGHTS, WORKERS)
    demand_rps = PLANNED_RPS * workers / 2
    progress(f"deploying {len(weights)} cells and a front")
    async with deployed(weights, demand_rps) as cells:
        rps = LOAD_SHARE * demand_rps
        found = []
        for protocol in ("http", "grpc"):
            progress(f"balance over {protocol}")
            found.append(await _balance(cells, protocol, rps, effort.seconds(BALANCE_S, least_s=1.0)))
        progress("gateway lost")
        return found + await _gateway_lost(cells, rps, effort)


async def _balance(cells: FrontedCells, protocol: str, rps: float, seconds: float) -> Figure:
    before = await asyncio.to_thread(_arrivals, cells)
    sent = await (_over_http if protocol == "http" else _over_grpc)(cells, rps, seconds)
    after = await asyncio.to_thread(_wait_arrivals, cells, sum(before.values()) + sent)
    total = sum(after.values()) - sum(before.values())
    weights = {entry["name"]: entry["weights"][MODEL] for entry in cells.entries}
    shares = {name: (after[name] - before[name]) / total for name in weights}
    worst = max(abs(shares[name] / weight - 1) for name, weight in weights.items())
    listed = ", ".join(f"{shares[name]:.3f} for {weight:g}" for name, weight in weights.items())
    note = f"largest deviation of a cell's requests from its weight; {sent} requests; shares: {listed}"
    return figure(f"cluster.balance.{protocol}", worst, "share", note, at_most=0.03)


def _arrivals(cells: FrontedCells) -> Mapping[str, float]:
    return {name: one.metric("jigsaw_arrivals_total", graph=MODEL) for name, one in cells.systems.items()}


def _wait_arrivals(cells: FrontedCells, total: float) -> Mapping[str, float]:
    """Returns the requests of each cell once the metrics, which lag, have all."""
    give_up_at = time.monotonic() + 10
    while sum((found := _arrivals(cells)).values()) < total and time.monotonic() < give_up_at:
        time.sleep(0.2)
    return found


async def _over_http(cells: FrontedCells, rps: float, seconds: float) -> int:
    outcomes = await client.poisson(_ports(cells), client.request(MODEL, {"X": ROW}), rps, seconds, Random(1))
    if failed := [outcome for outcome in outcomes if outcome.status != OK]:
        raise ServerError(f"{len(failed)} of {len(outcomes)} requests failed")
    return len(outcomes)


async def _over_grpc(cells: FrontedCells, rps: float, seconds: float) -> int:
    """Sends requests over one connection of HTTP/2 for each client."""
    end_s = time.monotonic() + seconds

    async def one() -> int:
        count = 0
        async with triton.InferenceServerClient(f"127.0.0.1:{cells.front.grpc}") as found:
            tensor = triton.InferInput("X", list(ROW.shape), "FP32")
            tensor.set_data_from_numpy(ROW)
            while time.monotonic() < end_s:
                await found.infer(MODEL, [tensor], client_timeout=60)
                count += 1
                await asyncio.sleep(GRPC_CLIENTS / rps)
        return count

    return sum(await asyncio.gather(*(one() for _ in range(GRPC_CLIENTS))))


def _ports(cells: FrontedCells) -> GatewayPorts:
    return GatewayPorts(cells.front.http, cells.front.grpc, cells.front.metrics)


async def _gateway_lost(cells: FrontedCells, rps: float, effort: Effort) -> list[Figure]:
    """Kills all processes of the cell with the largest weight."""
    seconds = effort.seconds(BEFORE_S + AFTER_S, least_s=4.0)
    began_s = time.monotonic()
    request = client.request(MODEL, {"X": ROW})
    load = asyncio.create_task(client.poisson(_ports(cells), request, rps, seconds, Random(2)))
    await asyncio.sleep(BEFORE_S if seconds > 2 * BEFORE_S else seconds / 4)
    at_s = time.monotonic() - began_s
    killed_s = await asyncio.to_thread(cells.kill, "cell1") - began_s
    return lost(await load, at_s, killed_s, f"gateway, controller, supervisor and workers killed; {rps:g} requests/s")


def lost(outcomes: list[Outcome], at_s: float, killed_s: float, note: str) -> list[Figure]:
    """Returns the figures of a lost cell.

    Args:
        outcomes: Outcomes of all requests.
        at_s: Second at which the first process was killed.
        killed_s: Second at which the gateway had ended. A request from before it may have been in progress there.
        note: Description of the fault and the load.
    """
    failed = [outcome for outcome in outcomes if outcome.status != OK]
    inside = [outcome for outcome in failed if outcome.due_s < killed_s and outcome.ended_s >= at_s]
    after = [outcome for outcome in outcomes if outcome.due_s >= at_s and outcome.status == OK]
    slowest_s = max(outcome.latency_ms for outcome in after) / 1e3
    until_s = max((outcome.ended_s for outcome in inside), default=at_s) - at_s
    note = f"{note}, {len(outcomes)} in all; the gateway had ended after {killed_s - at_s:.2f} s"
    fails = f"{note}; {len(inside)} failed in progress"
    slow = f"slowest answer after the fault; {note}"
    return [
        figure("cluster.cell_lost.elsewhere_s", max(slowest_s, until_s), "s", slow, at_most=2),
        figure("cluster.cell_lost.lost", len(failed) - len(inside), "requests", fails, at_most=0),
    ]
