"""Plans, templates and clusters for tests of the compiler."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.bundle import Bundle, ModelFolder
from jigsaw_triton.compiler.compile import compile_plan
from jigsaw_triton.compiler.templates import Template
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, Placement
from jigsaw_triton.graph.model import Target, TaskGraph
from jigsaw_triton.planner.domain.plan import (
    GraphPlan,
    PlacedModel,
    PlacedSlice,
    Plan,
    PlannedGpu,
    Segment,
    SolverReport,
    TaskPlan,
)
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable

PYTHON_BASE = 'backend: "python"\n'
TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        Template("front", 'backend: "jigsaw"\n'),
        Template("step", PYTHON_BASE, model_py=b"step"),
        Template("pipeline", PYTHON_BASE, model_py=b"pipeline"),
        Template("ensemble", 'platform: "ensemble"\n'),
        Template("emulated", PYTHON_BASE, model_py=b"runner"),
        Template("python", PYTHON_BASE, model_py=b"runner"),
        Template(
            "onnxruntime",
            PYTHON_BASE,
            'backend: "onnxruntime"\ndefault_model_filename: "model.onnx"\n',
            model_py=b"runner",
        ),
    )
}
"""Stand-ins, so that golden files do not move with the real ones."""

Placed = Mapping[tuple[int, int, str], Iterable[PlacedModel]]
"""(GPU index, start, slice) -> models."""


def every(graph: TaskGraph, *, instances: int = 2, batch: int = 4, rates: Mapping[str, float] | None = None) -> Plan:
    """A plan that gives each task's first variant a 1g slice of its own, seven to a GPU."""
    placed = {
        (i // 7, i % 7, "1g"): [PlacedModel(graph.name, task.name, task.variants[0].name, instances, batch)]
        for i, task in enumerate(graph.tasks.values())
    }
    return plan([graph], placed, rates=rates)


def together(of: TaskGraph, *slices: Sequence[str], batches: Mapping[str, int] | None = None) -> Plan:
    """A plan of slices with these tasks each, or one with all of them: first variants of one instance and batch 4.

    Args:
        of: The graph.
        slices: Tasks of each.
        batches: Task -> its batch where that is another.
    """
    placed = {
        (0, at, "1g"): [
            PlacedModel(of.name, name, of.tasks[name].variants[0].name, 1, (batches or {}).get(name, 4))
            for name in names
        ]
        for at, names in enumerate(slices or [list(of.tasks)])
    }
    return plan([of], placed)


def plan(
    graphs: Iterable[TaskGraph],
    placed: Placed,
    *,
    board: str = "A100-80GB",
    rates: Mapping[str, float] | None = None,
    demand_rps: float = 100.0,
) -> Plan:
    """A plan of exactly these placements.

    Args:
        graphs: All of them.
        placed: Where what is.
        board: Of every GPU.
        rates: Task -> calls a second where they are not the demand.
        demand_rps: Of every graph.
    """
    placed = {at: tuple(models) for at, models in placed.items()}
    gpus = tuple(
        PlannedGpu(
            GpuId("n", index),
            board,
            tuple(
                PlacedSlice(Placement(start, slice_), tuple(models))
                for (gpu, start, slice_), models in sorted(placed.items())
                if gpu == index
            ),
        )
        for index in sorted({gpu for gpu, _, _ in placed})
    )
    return Plan(
        graphs={g.name: _graph_plan(g, placed, rates or {}, demand_rps) for g in graphs},
        gpus=gpus,
        slices_used=len(placed),
        slices_total=7 * len(gpus),
        gpus_used=len(gpus),
        features="AST",
        formulation="exact",
        latency_model="queue",
        solver=SolverReport("HiGHS", "optimal", 0.1, 0.0),
    )


def _graph_plan(graph: TaskGraph, placed: Placed, rates: Mapping[str, float], demand_rps: float) -> GraphPlan:
    tasks = {
        name: TaskPlan(
            budget_ms=100.0,
            rate_rps=rates.get(name, demand_rps),
            segments=tuple(
                Segment(model.variant, slice_, model.instances, model.batch, 1, 1.0)
                for (_, _, slice_), models in placed.items()
                for model in models
                if (model.graph, model.task) == (graph.name, name)
            ),
        )
        for name in graph.tasks
    }
    return GraphPlan(demand_rps, demand_rps * 1.2, 1.0, graph.slo.latency_ms / 2, tasks)


def cluster(gpus: int = 4, board: str = "A100-80GB") -> Cluster:
    """Emulated GPUs of node `n`."""
    return Cluster(tuple(Gpu(GpuId("n", index), CATALOG[board]) for index in range(gpus)))


def profile(graph: TaskGraph, *, board: str = "A100-80GB", slice_: str = "1g") -> ProfileTable:
    """Every variant at 1 to 4 instances and batches of 1 to 8: 10 ms and 1 ms more an item."""
    return ProfileTable(
        ProfileRow(
            ProfileKey(board, task.name, variant.name, slice_, instances, batch),
            latency_p50_ms=10.0 + batch,
            latency_p95_ms=11.0 + batch,
            latency_p99_ms=12.0 + batch,
            throughput_rps=instances * batch / (0.010 + 0.001 * batch),
            memory_mib=500.0,
            source="assumed",
        )
        for task in graph.tasks.values()
        for variant in task.variants
        for instances in range(1, 5)
        for batch in (1, 2, 4, 8)
    )


def identity(path: Path) -> str:
    """Content that follows from the path."""
    return f"content of {path}"


def compiled(
    graph: TaskGraph,
    of: Plan | None = None,
    *,
    target: Target | None = None,
    generation: int = 3,
    running: Bundle | None = None,
    on: Cluster | None = None,
    templates: Mapping[str, Template] = TEMPLATES,
    backends: Iterable[str] = ("python",),
) -> Bundle:
    """One graph, compiled with all that belongs to it; for `target`, where it is given, in place of the graph's own."""
    if target is not None:
        graph = replace(graph, target=target)
    return compile_plan(
        of or every(graph),
        {graph.name: graph},
        on or cluster(),
        {graph.name: profile(graph)},
        generation=generation,
        templates=templates,
        backends=frozenset(backends),
        identity=identity,
        running=running,
    )


def spec_text(folder: ModelFolder) -> str:
    """The specification in a model's configuration."""
    text: str = cfg.of_folder(folder).parameters["spec"].string_value
    return text


def spec_of(folder: ModelFolder) -> Any:
    """The same, read."""
    return json.loads(spec_text(folder))
