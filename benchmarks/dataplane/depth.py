"""Latency that each further stage of a chain adds: chains of one to six stages, with one worker for each stage.

One client loads the chains and native ensembles with the same number of stages, in turn.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import system
from benchmarks.dataplane import graphs, sides
from benchmarks.dataplane.compare import added_ms
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress, figure, spread
from jigsaw_triton.evaluation.load import Measured
from jigsaw_triton.servers.installation import find_installation
from jigsaw_triton.servers.perf_analyzer import find_perf_analyzer

RUN_S = 2.0
STAGES = ("first", "second", "third", "fourth", "fifth", "sixth")
DEPTHS = range(1, len(STAGES) + 1)
BOARDS = 3
"""Boards with room for 21 workers, one for each stage of all chains."""

GOAL_MS = 0.12

Runs = Mapping[tuple[str, int], Sequence[Measured]]
"""(`chain` or `native`, stages) -> one measurement for each round."""


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Starts all chains, loads them in turn, and compares."""
    installation, analyzer = find_installation(), find_perf_analyzer()
    # A line needs two points.
    depths = DEPTHS[: max(2, effort.count(len(DEPTHS)))]
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        folder = Path(path)
        chains, alone = (
            sides.one_worker_per_task(
                [graphs.chain(folder, f"{name}-{depth}", stages=STAGES[:depth]) for depth in depths],
                system.cluster("cpu", BOARDS),
            )
            for name in ("chain", "native")
        )
        progress(f"starting {sum(depths)} workers, their gateway, and the server of the native ensembles")
        models = sides.native_ensembles(alone, installation.backends)
        async with (
            sides.behind_gateway(installation, chains) as ours,
            sides.native(installation, models, alone.graphs, alone.cluster) as theirs,
        ):
            found = {**ours, **theirs}
            runs: dict[tuple[str, int], list[Measured]] = {}
            for number in range(1 - effort.warm_ups, effort.rounds + 1):
                progress(f"depth: round {number} of {effort.rounds}")
                for depth in depths:
                    for name in ("native", "chain"):
                        side = found[f"{name}-{depth}"]
                        run = await asyncio.to_thread(side.load, analyzer, folder, 1, effort.seconds(RUN_S))
                        runs.setdefault((name, depth), []).append(run)
    return figures({key: measured[effort.warm_ups :] for key, measured in runs.items()})


def figures(runs: Runs) -> list[Figure]:
    """Fits a straight line to the latency that is added at each depth. The figure is its slope."""
    depths = sorted({depth for _, depth in runs})
    added = [added_ms(runs["chain", depth], runs["native", depth]) for depth in depths]
    slopes = [_line(depths, values)[0] for values in zip(*added, strict=True)]
    middle = [median(values) for values in added]
    slope, start = _line(depths, middle)
    off_ms = max(abs(ms - start - slope * depth) for depth, ms in zip(depths, middle, strict=True))
    native = [median(run.latency_ms[50] for run in runs["native", depth]) for depth in depths]
    note = (
        f"p50 of 1 to {depths[-1]} stages minus that of native ensembles with as many, one client: slope, median of "
        f"{len(slopes)} rounds, {spread(slopes)}; intercept {start:.2f} ms, at most {off_ms:.2f} ms off the line; "
        "baseline: slope of the native ensembles, ms"
    )
    return [figure("dataplane.depth", median(slopes), "ms", note, at_most=GOAL_MS, baseline=_line(depths, native)[0])]


def _line(depths: Sequence[int], values_ms: Sequence[float]) -> tuple[float, float]:
    """Fits a line by least squares. Returns its slope in ms per stage and its intercept in ms."""
    slope, start = np.polyfit(depths, values_ms, 1)
    return float(slope), float(start)
