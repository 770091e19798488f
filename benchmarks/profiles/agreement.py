"""The 95th percentile of a measurement that ends by its confidence, against that of a run of 60 s by perf_analyzer.

perf_analyzer cannot connect to the Unix sockets of workers, so both clients call the same model on one tritonserver
over HTTP and TCP. The load of a shared machine drifts, so each model is measured by both in turn: our loop, a run of
perf_analyzer, our loop, another run, our loop. How far the two runs of perf_analyzer are apart shows what agreement the
machine allows. Our own loop of 60 s separates the effect of the stopping rule from that of the client.

A call of the small classifiers takes a quarter of a millisecond, of which the clients themselves are a visible part.
The large one takes some milliseconds, as models usually do.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks import system
from benchmarks.dataplane import sides
from benchmarks.dataplane.onnx import HIDDEN, SEED, SIZE, application
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

RUN_S, RUNS = 60.0, 2
"""Length of a run of perf_analyzer, and the number of runs."""

CLIENTS = 1
OUTPUTS = ("DIGIT", "SCORES")
MODELS = {
    "python": ("python", (HIDDEN,)),
    "onnxruntime": ("onnxruntime", (HIDDEN,)),
    "large": ("onnxruntime", (2048, 2048, 2048)),
}
"""Name of a model -> its template, and the width of each hidden layer."""

AT_MOST = 0.05
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Compared:
    """95th percentiles of one model's latency, in milliseconds.

    Attributes:
        ours_ms: Measured by our loop until it is confident, before, between and after the runs of perf_analyzer.
        theirs_ms: Measured by each run of perf_analyzer.
        longer_ms: Measured by our loop for as long as by a run of perf_analyzer.
        confident: True if all measurements in `ours_ms` ended by their confidence.
    """

    ours_ms: Sequence[float]
    theirs_ms: Sequence[float]
    longer_ms: float
    confident: bool

    @property
    def difference(self) -> float:
        """Difference of our mean from that of perf_analyzer, as a share of the latter."""
        return abs(mean(self.ours_ms) / mean(self.theirs_ms) - 1)

    @property
    def repeated(self) -> float:
        """Largest difference between runs of perf_analyzer, as a share of their mean."""
        return (max(self.theirs_ms) - min(self.theirs_ms)) / mean(self.theirs_ms)


def measure(progress: Progress, effort: Effort) -> list[Figure]:
    """Measures all figures."""
    return system.run(_measure(progress, effort), limit_s("profiles"))


async def _measure(progress: Progress, effort: Effort) -> list[Figure]:
    installation, analyzer = find_installation(), find_perf_analyzer()
    run_s, pace = effort.seconds(RUN_S, least_s=1.0), Pace()
    pace = pace.at_most(effort.seconds(pace.most_s))
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        graphs = [
            application(Path(path), name, template, normalised=False, hidden=hidden)
            for name, (template, hidden) in MODELS.items()
        ]
        wanted = sides.one_worker_per_task(graphs, system.cluster("cpu"))
        models = sides.worker_models(wanted, installation.backends)
        ports = wanted.cluster.gateway
        found: dict[str, Compared] = {}
        async with system.lone_server(installation, ports) as server:
            await server.gateway.load([model.folder for model in models])
            for model in models:
                ours, theirs = [await _ours(ports, model.name, pace)], []
                for _ in range(effort.count(RUNS)):
                    progress(f"agreement: perf_analyzer for {run_s:g} s on {model.name}")
                    theirs.append(await asyncio.to_thread(_theirs, analyzer, ports, model.name, run_s, Path(path)))
                    ours.append(await _ours(ports, model.name, pace))
                longer_ms, _ = await _ours(ports, model.name, Pace(most_s=run_s, least_s=run_s))
                values_ms, ended = zip(*ours, strict=True)
                compared = found[model.graph] = Compared(values_ms, theirs, longer_ms, all(ended))
                progress(f"agreement: {_listed(compared)}, {run_s:g} s {longer_ms:.3g} ms")
    return figures_of(found, run_s)


def figures_of(found: Mapping[str, Compared], run_s: float) -> list[Figure]:
    """Computes the figures: the largest difference of all models, and that of each.

    Args:
        found: Comparison by the model's name.
        run_s: Seconds of the long runs.
    """
    how = f"at {CLIENTS} client over TCP, {run_s:g} s each; baseline: largest difference between runs of perf_analyzer"
    listed = [
        figure(
            f"profiles.perf_analyzer_agreement.{name}",
            one.difference,
            "share",
            f"{_listed(one)}; {'all' if one.confident else 'not all'} of ours ended by their confidence; our loop of "
            f"{run_s:g} s {one.longer_ms:.3g} ms",
            at_most=AT_MOST,
            baseline=one.repeated,
        )
        for name, one in found.items()
    ]
    largest, repeated = max(one.difference for one in found.values()), max(one.repeated for one in found.values())
    note = f"largest difference of p95 over {len(found)} models {how}"
    return [
        figure("profiles.perf_analyzer_agreement", largest, "share", note, at_most=AT_MOST, baseline=repeated),
        *listed,
    ]


def _listed(compared: Compared) -> str:
    ours, theirs = (", ".join(f"{v:.3g}" for v in values) for values in (compared.ours_ms, compared.theirs_ms))
    return f"{ours} ms; perf_analyzer {theirs} ms"


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
