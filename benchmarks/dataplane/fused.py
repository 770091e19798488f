"""Two stages that a shared worker does in one call, relative to a native ensemble of the same two models.

The native ensemble has a server of its own, with Triton's dynamic batching, and its models do not take turns.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks import system
from benchmarks.dataplane import graphs, sides
from benchmarks.dataplane.compare import NATIVE, added_ms, clients, rates
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.evaluation.load import Measured
from jigsaw_triton.servers.installation import find_installation
from jigsaw_triton.servers.perf_analyzer import find_perf_analyzer

RUN_S = 2.0
CLIENTS = (1, 8, 32)

RATE_GOALS = {32: 1.0}

Runs = Mapping[tuple[str, int], Sequence[Measured]]
"""(`fused` or `native`, clients) -> one measurement for each round."""


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Starts both sides, loads them in turn, and compares."""
    installation, analyzer = find_installation(), find_perf_analyzer()
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        folder = Path(path)
        fused, alone = (
            sides.one_worker_per_task([graphs.chain(folder, name)], system.cluster("cpu"), share=name == "fused")
            for name in ("fused", "native")
        )
        progress("starting the worker of the chain, its gateway, and the server of the native ensemble")
        models = sides.native_ensembles(alone, installation.backends)
        async with (
            sides.behind_gateway(installation, fused) as ours,
            sides.native(installation, models, alone.graphs, alone.cluster) as theirs,
        ):
            found = {**ours, **theirs}
            runs: dict[tuple[str, int], list[Measured]] = {}
            for number in range(1 - effort.warm_ups, effort.rounds + 1):
                progress(f"fused: round {number} of {effort.rounds}")
                for count in effort.some(CLIENTS):
                    for name in ("native", "fused"):
                        run = await asyncio.to_thread(found[name].load, analyzer, folder, count, effort.seconds(RUN_S))
                        runs.setdefault((name, count), []).append(run)
    return figures({key: measured[effort.warm_ups :] for key, measured in runs.items()})


def figures(runs: Runs) -> list[Figure]:
    """Computes the figures from the runs."""
    # A smoke run has only some of them.
    counts = [count for count in CLIENTS if ("fused", count) in runs]
    found = [
        rates(f"dataplane.fused.rate.{clients(n)}", runs["fused", n], runs["native", n], NATIVE, RATE_GOALS.get(n))
        for n in counts
    ]
    if 1 in counts:
        found.append(_added(runs["fused", 1], runs["native", 1]))
    return found


def _added(fused: Sequence[Measured], native: Sequence[Measured]) -> Figure:
    added = added_ms(fused, native)
    note = f"median of {len(added)} rounds, {spread(added)}; baseline: native ensemble, p50 in ms"
    baseline = median(run.latency_ms[50] for run in native)
    return figure("dataplane.fused.p50_added_ms.1_client", median(added), "ms", note, baseline=baseline)
