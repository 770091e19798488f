"""Throughput of a saturated task, relative to the capacity of its workers: many workers, unequal workers, short calls.

The variants are emulated, so their time is known exactly. Closed loops keep more requests in flight than the workers
hold.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client, graphs
from benchmarks.dataplane.sides import SETTINGS
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.planner.domain.problem import Options
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable
from jigsaw_triton.servers.installation import find_installation

WARM_UP_S = 2.0
RUN_S = 6.0
BATCH = 8
SLO_MS = 5000

WORKERS, WORKER_MS = 16, 50.0
WORKERS_GOAL = 0.97

SLICE_MS = {"4g": 30.0, "3g": 90.0}
"""Slice -> batch time in milliseconds of the two unequal workers, which fill a board."""

BALANCE_GOAL = 0.97

SHORT_MS = 5.0
"""Batch time of the only worker in the case of short calls. The pause between two calls is a larger share of it."""


@dataclass(frozen=True, slots=True)
class Case:
    """A task with certain workers.

    Attributes:
        wanted: Deployment of the task.
        workers: Number of workers that the plan must have.
        ideal_rps: Capacity of these workers in requests/s.
    """

    wanted: Wanted
    workers: int
    ideal_rps: float


def many(folder: Path, workers: int = WORKERS) -> Case:
    """Returns the case of many equal workers."""
    return _equal(folder, "many", workers, WORKER_MS)


def short(folder: Path) -> Case:
    """Returns the case of one worker with short calls."""
    return _equal(folder, "short", 1, SHORT_MS)


def _equal(folder: Path, name: str, workers: int, batch_ms: float) -> Case:
    row = system.profile("cpu", "work", "only", BATCH, batch_ms, _rps(batch_ms))
    return _case(folder, name, [row], system.cluster("cpu", 3), workers, workers * _rps(batch_ms))


def unequal(folder: Path) -> Case:
    """Returns the case of two workers, one three times as fast as the other."""
    rows = [
        system.profile("cpu", "work", "only", BATCH, ms, _rps(ms), slice_=slice_) for slice_, ms in SLICE_MS.items()
    ]
    return _case(folder, "unequal", rows, system.cluster("cpu"), 2, sum(map(_rps, SLICE_MS.values())))


def _rps(batch_ms: float) -> float:
    return BATCH * 1000 / batch_ms


def _case(
    folder: Path, name: str, rows: Sequence[ProfileRow], cluster: Cluster, workers: int, ideal_rps: float
) -> Case:
    graph = graphs.emulated(folder, name, slo_ms=SLO_MS)
    # Nearly the planned capacity of these workers, so the planner uses exactly this number.
    demand_rps = 0.99 * Options(latency_model=system.BY_HAND).usable * ideal_rps
    wanted = Wanted(
        {name: graph},
        {name: demand_rps},
        {name: ProfileTable(rows)},
        cluster,
        latency_model=system.BY_HAND,
    )
    return Case(wanted, workers, ideal_rps)


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Measures the cases, one after the other."""
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        folder = Path(path)
        cases = {"workers": many(folder, effort.count(WORKERS)), "balance": unequal(folder), "short": short(folder)}
        rates_rps = {name: await _rates(case, progress, effort) for name, case in cases.items()}
    notes = {
        "workers": f"{cases['workers'].workers} emulated workers of {WORKER_MS:g} ms and batch {BATCH}",
        "balance": f"emulated workers of {' and '.join(f'{ms:g}' for ms in SLICE_MS.values())} ms and batch {BATCH}",
        "short": f"an emulated worker of {SHORT_MS:g} ms and batch {BATCH}",
    }
    goals = {"workers": WORKERS_GOAL, "balance": BALANCE_GOAL}
    return [share(name, notes[name], rates_rps[name], cases[name].ideal_rps, goals.get(name)) for name in cases]


async def _rates(case: Case, progress: Progress, effort: Effort) -> list[float]:
    (name,) = case.wanted.graphs
    ports = case.wanted.cluster.gateway
    request = client.request(name, {"X": np.ones((1, graphs.FLOATS), np.float32)})
    async with system.system(find_installation(), SETTINGS) as running:
        progress(f"{name}: starting {case.workers} workers")
        await running.deploy(case.wanted)
        state = running.controller.state.running
        started = len(state.bundle.workers) if state is not None else 0
        if started != case.workers:
            raise ServerError(f"the plan has {started} workers, not {case.workers}", where=name)
        rates_rps = []
        warm_up_s, seconds = effort.seconds(WARM_UP_S), effort.seconds(RUN_S)
        for number in range(effort.rounds):
            progress(f"{name}: round {number + 1} of {effort.rounds}")
            held = case.workers * BATCH
            rates_rps.append(await client.closed_loop(ports, request, 3 * held, warm_up_s=warm_up_s, seconds=seconds))
    return rates_rps


def share(name: str, what: str, rates_rps: Sequence[float], ideal_rps: float, goal: float | None) -> Figure:
    """Computes the throughput as a share of the workers' capacity."""
    shares = [rate / ideal_rps for rate in rates_rps]
    note = (
        f"{what}, saturated by one process over HTTP; median of {len(shares)} rounds, {spread(shares)}; "
        f"{median(rates_rps):.4g} requests/s; baseline: capacity of the workers, requests/s"
    )
    return figure(f"dataplane.{name}", median(shares), "share", note, at_least=goal, baseline=ideal_rps)
