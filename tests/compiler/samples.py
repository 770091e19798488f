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
            'backend: "jigsaw"\ndefault_model_filename: "model.onnx"\n',
            'backend: "onnxruntime"\ndefault_model_filename: "model.onnx"\n',
        ),
    )
}
"""Simple templates in place of the real ones, whose changes would otherwise change the golden files."""

Placed = Mapping[tuple[int, int, str], Iterable[PlacedModel]]
"""Models of each (GPU index, start, slice)."""


def every(graph: TaskGraph, *, instances: int = 2, batch: int = 4, rates: Mapping[str, float] | None = None) -> Plan:
    """Returns a plan in which the first variant of each task has its own 1g slice, seven to a GPU."""
    placed = {
        (i // 7, i % 7, "1g"): [PlacedModel(graph.name, task.name, task.variants[0].name, instances, batch)]
        for i, task in enumerate(graph.tasks.values())
    }
    return plan([graph], placed, rates=rates)


def together(of: TaskGraph, *slices: Sequence[str], batches: Mapping[str, int] | None = None) -> Plan:
    """Returns a plan whose slices hold first variants of several tasks, with one instance and batch 4 by default.

    Args:
        of: Graph to plan.
        slices: Tasks of each slice; all tasks in one slice if there are none.
        batches: Batches other than 4, by task.
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
    """Returns a plan with exactly these placements.

    Args:
        graphs: Graphs of the plan.
        placed: Models of each slice.
        board: Board of every GPU.
        rates: Calls per second that differ from the demand, by task.
        demand_rps: Demand of every graph.
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
    """Returns a cluster of emulated GPUs on node `n`."""
    return Cluster(tuple(Gpu(GpuId("n", index), CATALOG[board]) for index in range(gpus)))


def profile(graph: TaskGraph, *, board: str = "A100-80GB", slice_: str = "1g") -> ProfileTable:
    """Returns a profile of every variant with 1 to 4 instances and batches of 1 to 8: a median of 10 ms + 1 ms/item."""
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
    """Returns an identity that depends only on the path."""
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
    """Compiles one graph, for the given target or the graph's own."""
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
    """Returns the specification in a model's configuration as JSON text."""
    text: str = cfg.of_folder(folder).parameters["spec"].string_value
    return text


def spec_of(folder: ModelFolder) -> Any:
    """Returns the parsed specification in a model's configuration."""
    return json.loads(spec_text(folder))
