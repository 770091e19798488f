"""The application `docread` across workers, relative to the same models called by a BLS model in one tritonserver.

It uses the lightest variants: real models, pages of real size, rows that fan out.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import system
from benchmarks.dataplane import sides
from benchmarks.dataplane.compare import rates
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress
from jigsaw_triton.applications import fetch_application
from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler import ensemble
from jigsaw_triton.compiler.bundle import ModelFolder, WorkerModel
from jigsaw_triton.compiler.templates import CONFIG_FILE, MODEL_FILE
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.evaluation.load import Measured
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.graph.build import build_graph
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.resources import applications_dir
from jigsaw_triton.servers.installation import find_installation
from jigsaw_triton.servers.perf_analyzer import find_perf_analyzer
from jigsaw_triton.spec.load import load_graph

RUN_S = 12.0
WARM_UP_S = 4.0
LEAST_S = 2.0
"""Seconds that are enough for a few pages."""

CLIENTS = 4
BATCH = 8
"""Lines in a batch of `recognise`."""

BLS_CODE = Path(__file__).with_name("docread_bls.py")
"""Code of the BLS model. It is not imported here, because its own imports exist only inside tritonserver."""

VARIANTS = {"detect": "v6_tiny_352", "recognise": "v6_tiny"}
GOAL = 0.97


def one_variant_per_task(graph: TaskGraph, name: str) -> TaskGraph:
    """Returns the graph under another name, with only the variants in VARIANTS."""
    tasks = {task.name: replace(task, variants=(task.variant(VARIANTS[task.name]),)) for task in graph.tasks.values()}
    return replace(graph, name=name, tasks=tasks, slo=replace(graph.slo, accuracy=0.01))


def wanted(graph: TaskGraph, cluster: Cluster) -> Wanted:
    """Returns a deployment with one worker for `detect` and two for `recognise`: a page has some 25 lines."""
    lines = graph.tasks["detect"].variants[0].yields["CROPS"]
    rows = ProfileTable(
        (
            system.profile("cpu", "detect", VARIANTS["detect"], 1, 1.0, 1.5),
            system.profile("cpu", "recognise", VARIANTS["recognise"], BATCH, 1.0, 0.75 * lines),
        )
    )
    return Wanted(
        {graph.name: graph},
        {graph.name: 1.0},
        {graph.name: rows},
        cluster,
        latency_model=system.BY_HAND,
    )


def bls(graph: TaskGraph, models: Sequence[WorkerModel]) -> ModelFolder:
    """Returns the BLS model that clients of the single server call, with one instance for each client."""
    config = cfg.parse('backend: "python"', where="benchmark")
    config.name = graph.name
    config.max_batch_size = 1
    cfg.set_tensors(config, ensemble.input_types(graph), ensemble.output_types(graph))
    cfg.set_instances(config, CLIENTS)
    for model in models:
        config.parameters[model.task].string_value = model.name
    config.parameters["batch"].string_value = str(BATCH)
    files = {CONFIG_FILE: cfg.render(config), f"{cfg.VERSION}/{MODEL_FILE}": BLS_CODE.read_bytes()}
    return ModelFolder(graph.name, files)


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Starts both sides, and loads them in turn."""
    installation, analyzer = find_installation(), find_perf_analyzer()
    source = applications_dir() / "docread"
    fetch_application(source, progress)
    graph = build_graph(load_graph(source), templates=frozenset(system.templates()), require_files=True)
    ours, theirs = (
        wanted(one_variant_per_task(graph, name), system.cluster("cpu")) for name in ("pages", "one-server")
    )
    models = sides.worker_models(theirs, installation.backends)
    front = bls(theirs.graphs["one-server"], models)
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        progress("docread: starting three workers, their gateway, and the server of the baseline")
        async with (
            sides.behind_gateway(installation, ours) as behind,
            sides.native(installation, [*(m.folder for m in models), front], theirs.graphs, theirs.cluster) as alone,
        ):
            found = {**alone, **behind}

            async def load(name: str, seconds: float) -> Measured:
                return await asyncio.to_thread(found[name].load, analyzer, Path(path), CLIENTS, seconds)

            runs: dict[str, list[Measured]] = {name: [] for name in found}
            for name in found if effort.warm_ups else ():
                await load(name, WARM_UP_S)
            for number in range(effort.rounds):
                progress(f"docread: round {number + 1} of {effort.rounds}")
                for name in found:
                    runs[name].append(await load(name, effort.seconds(RUN_S, least_s=LEAST_S)))
    return figures(runs["pages"], runs["one-server"])


def figures(ours: Sequence[Measured], theirs: Sequence[Measured]) -> list[Figure]:
    """Computes the figure from the runs."""
    baseline = (
        f"the same models with as many instances in one server, called by a BLS model, pages/s; {CLIENTS} clients, "
        f"{' and '.join(VARIANTS.values())}, one worker for detect and two for recognise"
    )
    return [rates("dataplane.docread.rate", ours, theirs, baseline, GOAL)]
