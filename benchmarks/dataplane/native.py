"""Two workers behind the gateway against a native ensemble of the same two models in one tritonserver.

Both sides are compiled by the same code. They are loaded in turn, and ratios are of runs that followed each other: by
perf_analyzer over gRPC, and with large tensors, with which its windows overrun, by a client of our own over HTTP.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client, graphs, sides
from benchmarks.dataplane.compare import NATIVE, added_ms, clients, rates, ratio
from benchmarks.dataplane.graphs import ROWS
from benchmarks.dataplane.sides import Side
from benchmarks.harness import Figure, Tell, figure, spread
from jigsaw_triton.evaluation.load import Measured
from jigsaw_triton.servers.installation import Installation, find_installation
from jigsaw_triton.servers.perf_analyzer import find_perf_analyzer

ROUNDS = 3
RUN_S = 2.0
WARM_UP_S = 1.5
LARGE_FLOATS = 150_000
"""600 kB."""

RUNS = {
    1: ("native", "ensemble", "bls"),
    8: ("native", "ensemble", "bls"),
    32: ("native", "ensemble", "bls", "native_rows", "rows", "rows_bls"),
}
"""Clients -> sides in the order in which they are loaded."""

LARGE = ("native_large", "large")
LARGE_CLIENTS = 8

RATE_GOALS = {8: 0.7, 32: 0.85}
P50_ADDED_GOAL_MS = 0.6
ROWS_GOAL = 0.85
LARGE_GOAL = 0.7

Runs = Mapping[tuple[str, int], Sequence[Measured]]
"""(side, clients) -> one measurement a round."""

Rates = Mapping[str, Sequence[float]]
"""Side of LARGE -> requests/s, one a round."""


async def measure(tell: Tell) -> list[Figure]:
    """Brings up both sides, loads them in turn, and compares."""
    installation, analyzer = find_installation(), find_perf_analyzer()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jigsaw-bench-")))
        tell("starting ten workers, their gateway, and the server of the native ensembles")
        found = await _sides(stack, folder, installation)

        async def load(name: str, count: int, seconds: float) -> Measured:
            return await asyncio.to_thread(found[name].load, analyzer, folder, count, seconds)

        async def load_large(name: str) -> float:
            request = client.request(found[name].graph.name, {"X": np.ones((1, LARGE_FLOATS), np.float32)})
            ports = found[name].ports
            return await client.closed_loop(ports, request, LARGE_CLIENTS, warm_up_s=WARM_UP_S, seconds=RUN_S)

        for name in dict.fromkeys(name for names in RUNS.values() for name in names):
            await load(name, 8, WARM_UP_S)
        large_rps: dict[str, list[float]] = {name: [] for name in LARGE}
        runs: dict[tuple[str, int], list[Measured]] = {}
        for number in range(ROUNDS):
            for count, names in RUNS.items():
                tell(f"round {number + 1} of {ROUNDS}: {count} clients")
                for name in names:
                    runs.setdefault((name, count), []).append(await load(name, count, RUN_S))
            for name in LARGE:
                large_rps[name].append(await load_large(name))
    return figures(runs, large_rps)


async def _sides(stack: AsyncExitStack, folder: Path, installation: Installation) -> dict[str, Side]:
    """Both sides, serving; the stack takes them down."""
    behind = {
        "ensemble": graphs.chain(folder, "chain", target="ensemble"),
        "bls": graphs.chain(folder, "chain-bls", target="bls"),
        "rows": graphs.fan_out(folder, "rows", target="ensemble"),
        "rows_bls": graphs.fan_out(folder, "rows-bls", target="bls"),
        "large": graphs.chain(folder, "large", floats=LARGE_FLOATS),
    }
    alone = {
        "native": graphs.chain(folder, "native-chain"),
        "native_rows": graphs.fixed_rows(folder, "native-rows"),
        "native_large": graphs.chain(folder, "native-large", floats=LARGE_FLOATS),
    }
    deployment, other = (sides.one_worker_a_task(g.values(), system.cluster("cpu", 2)) for g in (behind, alone))
    ours = await stack.enter_async_context(sides.behind_gateway(installation, deployment))
    models = sides.native_ensembles(other, installation.backends)
    theirs = await stack.enter_async_context(sides.native(installation, models, other.graphs, other.cluster))
    served = {**ours, **theirs}
    return {name: served[graph.name] for name, graph in {**behind, **alone}.items()}


def figures(runs: Runs, large_rps: Rates) -> list[Figure]:
    """What the runs say."""
    most = max(RUNS)
    found = [
        rates(f"dataplane.chain2.rate.{clients(n)}", runs["ensemble", n], runs["native", n], NATIVE, RATE_GOALS.get(n))
        for n in RUNS
    ]
    found.append(_added(runs))
    fixed = f"{ROWS} rows a request; {NATIVE}, which takes a request's rows as one fixed tensor"
    name = f"dataplane.fanout{ROWS}.rate.{clients(most)}"
    found.append(rates(name, runs["rows", most], runs["native_rows", most], fixed, ROWS_GOAL))
    large = f"600 kB in and out at both stages; {NATIVE}"
    name = f"dataplane.large.rate.{clients(LARGE_CLIENTS)}"
    found.append(ratio(name, large_rps["large"], large_rps["native_large"], large, LARGE_GOAL))
    for n in RUNS:
        name = f"dataplane.bls_over_ensemble.{clients(n)}"
        found.append(rates(name, runs["bls", n], runs["ensemble", n], "target ensemble, requests/s"))
    name = f"dataplane.bls_over_ensemble.fanout{ROWS}.{clients(most)}"
    three = f"{ROWS} rows a request; target ensemble, requests/s"
    found.append(rates(name, runs["rows_bls", most], runs["rows", most], three))
    return found


def _added(runs: Runs) -> Figure:
    added = added_ms(runs["ensemble", 1], runs["native", 1])
    note = f"median of {len(added)} rounds, {spread(added)}; baseline: native ensemble, p50 in ms"
    baseline = median(run.latency_ms[50] for run in runs["native", 1])
    name = "dataplane.chain2.p50_added_ms.1_client"
    return figure(name, median(added), "ms", note, at_most=P50_ADDED_GOAL_MS, baseline=baseline)
