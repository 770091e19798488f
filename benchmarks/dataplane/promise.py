"""Latency that clients see, relative to the plan's: reference graphs on emulated GPUs under Poisson arrivals.

The graphs' variants take the time that was profiled on an A100. Everything else is real: tritonservers, the gateway,
and perf_analyzer over gRPC. All of them share this machine's processor.
"""

import asyncio
import tempfile
from pathlib import Path

from benchmarks import a100, system
from benchmarks.dataplane.sides import SETTINGS, Side
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.evaluation.load import Load, Measured, request_tensors
from jigsaw_triton.evaluation.perf_analyzer import LoadRun
from jigsaw_triton.planner.domain.plan import GraphPlan
from jigsaw_triton.servers.installation import find_installation
from jigsaw_triton.servers.perf_analyzer import find_perf_analyzer

DEMAND_RPS = 60.0
BOARD, BOARDS = "A100-80GB", 2
RUN_S = 20.0
GOAL = 1.15


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Deploys and loads the graphs, one after the other."""
    if not a100.TABLE.exists():
        progress("promise: skipped: the A100 table is not beside the checkout")
        return []
    analyzer = find_perf_analyzer()
    found = []
    names = a100.NAMES if effort.rounds > 1 else a100.NAMES[:1]
    for name in names:
        graph = a100.reference_graph(name)
        table = a100.a100_table(graph)
        cluster = system.cluster(BOARD, BOARDS)
        wanted = Wanted({name: graph}, {name: DEMAND_RPS}, {name: table}, cluster)
        async with system.system(find_installation(), SETTINGS) as running:
            progress(f"promise: deploying {name}")
            await running.deploy(wanted)
            state = running.controller.state.running
            assert state is not None
            plan = state.plan.graphs[name]
            side = Side(graph, cluster.gateway, running.fleet)
            with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
                progress(f"promise: {name} at {DEMAND_RPS:g} requests/s")
                measured = await asyncio.to_thread(_load, side, analyzer, Path(path), effort.seconds(RUN_S))
        found += _figures(name, plan, graph.slo.latency_ms, measured)
    return found


def _load(side: Side, analyzer: Path, folder: Path, seconds: float) -> Measured:
    """Loads a graph with Poisson arrivals by perf_analyzer. Blocks."""
    url = f"{side.ports.address}:{side.ports.grpc}"
    run = LoadRun(
        analyzer, Load(side.graph.name, "grpc", url, rate_rps=DEMAND_RPS, duration_s=max(2.0, seconds)), folder
    )
    run.prepare(request_tensors(side.graph)[0])
    return run.measure()


def _figures(name: str, plan: GraphPlan, slo_ms: float, measured: Measured) -> list[Figure]:
    p99_ms = measured.latency_ms[99]
    note = (
        f"p99 of {measured.requests} requests at {DEMAND_RPS:g} a second, Poisson over gRPC, {BOARDS} emulated "
        f"{BOARD}, relative to the plan's latency of {plan.latency_ms:.0f} ms; p99 {p99_ms:.0f} ms, p50 "
        f"{measured.latency_ms[50]:.0f} ms"
    )
    return [
        figure(f"dataplane.promise.{name}", p99_ms / plan.latency_ms, "ratio", note, at_most=GOAL),
        figure(
            f"dataplane.promise.{name}.of_slo",
            p99_ms / slo_ms,
            "ratio",
            f"p99 relative to the SLO of {slo_ms:g} ms",
            at_most=1.0,
        ),
    ]
