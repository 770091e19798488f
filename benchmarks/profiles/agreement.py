"""The 95th percentile of a measurement that ends by its confidence, against that of a run of 60 s by perf_analyzer.

perf_analyzer cannot connect to the Unix sockets of workers, so both clients call the same model on one tritonserver
over HTTP and TCP. Each model is measured by our loop before and after perf_analyzer's run, since the load of a shared
machine drifts. Our own loop of 60 s separates the effect of the stopping rule from that of the client.
"""

import asyncio
import tempfile
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks import system
from benchmarks.dataplane import sides
from benchmarks.dataplane.onnx import SEED, SIZE, application
from benchmarks.effort import Effort
from benchmarks.harness import Figure, Progress, figure, limit_s
from jigsaw_triton.evaluation.load import Load as AnalyzerLoad
from jigsaw_triton.evaluation.perf_analyzer import LoadRun
from jigsaw_triton.evaluation.profiling.connection import Connection
from jigsaw_triton.evaluation.profiling.figures import figures
from jigsaw_triton.evaluation.profiling.load import Load, Pace, Target, closed_loop
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.runtime.dtypes import Array
from jigsaw_triton.servers.installation import find_installation
from jigsaw_triton.servers.perf_analyzer import find_perf_analyzer

RUN_S = 60.0
CLIENTS = 1
OUTPUTS = ("DIGIT", "SCORES")
TEMPLATES = ("python", "onnxruntime")
_TIMEOUT_S = 30.0


def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Measures all figures."""
    return system.run(_measure(progress, effort), limit_s("profiles"))


async def _measure(progress: Progress, effort: Effort) -> list[Figure]:
    installation, analyzer = find_installation(), find_perf_analyzer()
    run_s, pace = effort.seconds(RUN_S, least_s=1.0), Pace()
    pace = pace.at_most(effort.seconds(pace.most_s))
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        graphs = [application(Path(path), f"model-{name}", name, normalised=False) for name in TEMPLATES]
        wanted = sides.one_worker_per_task(graphs, system.cluster("cpu"))
        models = sides.worker_models(wanted, installation.backends)
        ports = wanted.cluster.gateway
        found: list[tuple[float, float, float, bool]] = []
        async with system.lone_server(installation, ports) as server:
            await server.gateway.load([model.folder for model in models])
            for model in models:
                before = await _ours(ports, model.name, pace)
                progress(f"agreement: perf_analyzer for {run_s:g} s on {model.name}")
                theirs = await asyncio.to_thread(_theirs, analyzer, ports, model.name, run_s, Path(path))
                after = await _ours(ports, model.name, pace)
                longer = await _ours(ports, model.name, Pace(most_s=run_s, least_s=run_s))
                ours = mean((before[0], after[0]))
                found.append((ours, theirs, longer[0], before[1] and after[1]))
                progress(f"agreement: p95 {ours:.3f} ms, perf_analyzer {theirs:.3f} ms, {run_s:g} s {longer[0]:.3f} ms")
    pairs = "; ".join(f"{ours:.3g} ms against {theirs:.3g} and {longer:.3g}" for ours, theirs, longer, _ in found)
    note = (
        f"largest difference of p95 over {len(found)} models (template {' and '.join(TEMPLATES)}) at {CLIENTS} client "
        f"over TCP, against perf_analyzer and against our loop, {run_s:g} s each: {pairs}; "
        f"{sum(sure for *_, sure in found)} of {len(found)} ended by their confidence; baseline: against our loop of "
        f"{run_s:g} s"
    )
    off, own = (max(abs(one[0] / one[against] - 1) for one in found) for against in (1, 2))
    return [figure("profiles.perf_analyzer_agreement", off, "share", note, at_most=0.05, baseline=own)]


async def _ours(ports: GatewayPorts, model: str, pace: Pace) -> tuple[float, bool]:
    """Returns the 95th percentile in milliseconds, and whether the measurement ended by its confidence."""
    target = Target(model, OUTPUTS, lambda _: Connection(f"{ports.address}:{ports.http}", _TIMEOUT_S))
    loop = await closed_loop(Load(target, [({"IMAGE": _image()},)], CLIENTS), pace)
    return figures(loop.lanes, 1).latency_p95_ms, loop.confident


def _theirs(analyzer: Path, ports: GatewayPorts, model: str, seconds: float, folder: Path) -> float:
    load = AnalyzerLoad(model, "http", f"{ports.address}:{ports.http}", CLIENTS, duration_s=seconds)
    run = LoadRun(analyzer, load, folder)
    run.prepare({"IMAGE": _image()[0]})
    return run.measure().latency_ms[95]


def _image() -> Array:
    return np.random.default_rng(SEED).random((1, SIZE, SIZE), np.float32)
