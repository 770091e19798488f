"""Two workers behind the gateway, relative to a native ensemble of the same two models in one tritonserver.

The gateway serves them as one front, as an ensemble of one-task fronts, and as a BLS pipeline.

The same code compiles both sides. They are loaded in turn, and ratios compare consecutive runs. perf_analyzer loads
them over gRPC. Large tensors overrun its windows, so `client` loads those over HTTP.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client, graphs, sides
from benchmarks.dataplane.compare import NATIVE, added_ms, clients, rates, ratio
from benchmarks.dataplane.graphs import ROWS
from benchmarks.dataplane.sides import Side
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.evaluation.load import Measured
from jigsaw_triton.servers.installation import Installation, find_installation
from jigsaw_triton.servers.perf_analyzer import find_perf_analyzer

RUN_S = 2.0
WARM_UP_S = 1.5
LARGE_FLOATS = 150_000
"""Floats of a large tensor: 600 kB."""

RUNS = {
    1: ("native", "graph", "ensemble"),
    8: ("native", "graph", "ensemble"),
    32: ("native", "graph", "ensemble", "bls", "native_rows", "rows"),
}
"""Number of clients -> sides in the order in which they are loaded."""

LARGE = ("native_large", "large")
LARGE_CLIENTS = (1, 8)

RATE_GOALS = {
    "graph": {1: 0.8, 8: 0.88, 32: 1.05},
    "ensemble": {1: 0.75, 8: 0.8, 32: 0.9},
}
P50_ADDED_GOAL_MS = 0.3
ROWS_GOAL = 1.0
LARGE_GOALS = {1: 0.8, 8: 0.75}
BLS_GOAL = 0.25
CPU_GOAL = 1.0


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement of a side.

    Attributes:
        measured: Report of perf_analyzer.
        cpu_us: Processor time of all servers for one request in microseconds, including the warm-up.
    """

    measured: Measured
    cpu_us: float


Runs = Mapping[tuple[str, int], Sequence[Run]]
"""(side, clients) -> one measurement for each round."""

Rates = Mapping[tuple[str, int], Sequence[float]]
"""(side in LARGE, clients) -> requests/s, one value for each round."""


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Starts both sides, loads them in turn, and compares."""
    installation, analyzer = find_installation(), find_perf_analyzer()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jigsaw-bench-")))
        progress("starting ten workers, their gateway, and the server of the native ensembles")
        found = await _sides(stack, folder, installation)

        async def load(name: str, count: int, seconds: float) -> Run:
            side = found[name]
            before_s, answered = side.cpu_s(), await _answered(side)
            measured = await asyncio.to_thread(side.load, analyzer, folder, count, seconds)
            requests = await _answered(side) - answered
            return Run(measured, 1e6 * (side.cpu_s() - before_s) / max(1.0, requests))

        async def load_large(name: str, count: int) -> float:
            request = client.request(found[name].graph.name, {"X": np.ones((1, LARGE_FLOATS), np.float32)})
            ports = found[name].ports
            warm_up_s, seconds = effort.seconds(WARM_UP_S), effort.seconds(RUN_S)
            return await client.closed_loop(ports, request, count, warm_up_s=warm_up_s, seconds=seconds)

        for name in dict.fromkeys(name for names in RUNS.values() for name in names) if effort.warm_ups else ():
            await load(name, 8, WARM_UP_S)
        wanted = {count: RUNS[count] for count in effort.some(tuple(RUNS))}
        large_rps: dict[tuple[str, int], list[float]] = {}
        runs: dict[tuple[str, int], list[Run]] = {}
        for number in range(effort.rounds):
            for count, names in wanted.items():
                progress(f"round {number + 1} of {effort.rounds}: {count} clients")
                for name in names:
                    runs.setdefault((name, count), []).append(await load(name, count, effort.seconds(RUN_S)))
            for count in LARGE_CLIENTS[: effort.count(len(LARGE_CLIENTS))]:
                for name in LARGE:
                    large_rps.setdefault((name, count), []).append(await load_large(name, count))
    return figures(runs, large_rps)


async def _answered(side: Side) -> float:
    """Returns the number of requests that a side's graph has answered so far."""
    server = side.fleet.server(side.fleet.GATEWAY)
    assert server is not None
    counted = await server.client.statistics(side.graph.name)
    return float(sum(item["inference_stats"]["success"]["count"] for item in counted))


async def _sides(stack: AsyncExitStack, folder: Path, installation: Installation) -> dict[str, Side]:
    """Starts both sides; the stack takes them down."""
    behind = {
        "graph": graphs.chain(folder, "chain", target="graph"),
        "ensemble": graphs.chain(folder, "chain-ensemble", target="ensemble"),
        "bls": graphs.chain(folder, "chain-bls", target="bls"),
        "rows": graphs.fan_out(folder, "rows", target="graph"),
        "large": graphs.chain(folder, "large", floats=LARGE_FLOATS),
    }
    alone = {
        "native": graphs.chain(folder, "native-chain"),
        "native_rows": graphs.fixed_rows(folder, "native-rows"),
        "native_large": graphs.chain(folder, "native-large", floats=LARGE_FLOATS),
    }
    deployment, other = (sides.one_worker_per_task(g.values(), system.cluster("cpu", 2)) for g in (behind, alone))
    ours = await stack.enter_async_context(sides.behind_gateway(installation, deployment))
    models = sides.native_ensembles(other, installation.backends)
    theirs = await stack.enter_async_context(sides.native(installation, models, other.graphs, other.cluster))
    served = {**ours, **theirs}
    return {name: served[graph.name] for name, graph in {**behind, **alone}.items()}


def figures(runs: Runs, large_rps: Rates) -> list[Figure]:
    """Computes the figures from the runs."""
    # A smoke run has only some of them.
    counts = [count for count in RUNS if ("graph", count) in runs]
    most = max(RUNS)

    def measured(name: str, count: int) -> list[Measured]:
        return [run.measured for run in runs[name, count]]

    found = []
    for target, goals in RATE_GOALS.items():
        suffix = "" if target == "graph" else f".{target}"
        for n, goal in goals.items():
            if n in counts:
                name = f"dataplane.chain2{suffix}.rate.{clients(n)}"
                found.append(rates(name, measured(target, n), measured("native", n), NATIVE, goal))
    if 1 in counts:
        found.append(_added(measured("graph", 1), measured("native", 1)))
    fixed = f"{ROWS} rows per request; {NATIVE}, which takes a request's rows as one tensor of fixed size"
    name = f"dataplane.fanout{ROWS}.rate.{clients(most)}"
    found.append(rates(name, measured("rows", most), measured("native_rows", most), fixed, ROWS_GOAL))
    large = f"inputs and outputs of 600 kB at both stages; {NATIVE}"
    for n, goal in LARGE_GOALS.items():
        if ("large", n) in large_rps:
            name = f"dataplane.large.rate.{clients(n)}"
            found.append(ratio(name, large_rps["large", n], large_rps["native_large", n], large, goal))
    name = f"dataplane.bls.rate.{clients(most)}"
    found.append(rates(name, measured("bls", most), measured("native", most), NATIVE, BLS_GOAL))
    for n in counts:
        found.append(_cpu(n, runs["graph", n], runs["native", n], CPU_GOAL if n == most else None))
    return found


def _added(ours: Sequence[Measured], native: Sequence[Measured]) -> Figure:
    added = added_ms(ours, native)
    note = f"median of {len(added)} rounds, {spread(added)}; baseline: native ensemble, p50 in ms"
    baseline = median(run.latency_ms[50] for run in native)
    name = "dataplane.chain2.p50_added_ms.1_client"
    return figure(name, median(added), "ms", note, at_most=P50_ADDED_GOAL_MS, baseline=baseline)


def _cpu(count: int, ours: Sequence[Run], native: Sequence[Run], goal: float | None) -> Figure:
    ratios = [one.cpu_us / other.cpu_us for one, other in zip(ours, native, strict=True)]
    note = (
        f"processor time of all servers and model processes for one request; median of {len(ratios)} rounds, "
        f"{spread(ratios)}; {median(run.cpu_us for run in ours):.0f} us; baseline: native ensemble, us"
    )
    baseline = median(run.cpu_us for run in native)
    return figure(f"dataplane.cpu_us.{clients(count)}", median(ratios), "ratio", note, at_most=goal, baseline=baseline)
