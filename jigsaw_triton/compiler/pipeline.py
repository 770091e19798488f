"""Compiles a graph to a BLS pipeline that calls one-task fronts."""

import math
from collections.abc import Iterable, Sequence

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler import ensemble, names
from jigsaw_triton.compiler.bundle import ModelFolder, TaskFront
from jigsaw_triton.compiler.front import MAX_BATCH, consumed, used
from jigsaw_triton.compiler.templates import CONFIG_FILE, MODEL_FILE, Template
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.graph.tensors import GRAPH_INPUTS, TensorRef
from jigsaw_triton.runtime.admission import MAX_IN_FLIGHT
from jigsaw_triton.runtime.spec import PipelineSpec, PipelineStep

MAX_INSTANCES = 8
"""Largest number of instances of a pipeline. Each is a process of 17 MB at the gateway."""


def pipeline(
    graph: TaskGraph, tasks: Sequence[TaskFront], template: Template, *, generation: int, apart: bool = False
) -> ModelFolder:
    """Compiles the BLS model, with enough instances to keep every worker busy and its next batch waiting.

    Args:
        graph: Graph to execute.
        tasks: One-task fronts in topological order.
        template: Template named `pipeline`.
        generation: Number in the model's name.
        apart: True if this is the form without chains of a graph that has chains.
    """
    config = cfg.parse(template.config_text, where=f"{template.name}/{CONFIG_FILE}")
    config.name = names.pipeline(graph.name, generation, apart=apart)
    config.max_batch_size = MAX_BATCH
    cfg.set_tensors(config, ensemble.input_types(graph), ensemble.output_types(graph), ragged=True)
    at_workers = sum(entry.batch * entry.slots for task in tasks for entry in task.route)
    cfg.set_instances(config, min(MAX_INSTANCES, math.ceil(2 * at_workers / MAX_IN_FLIGHT)))
    cfg.set_spec(config, _spec(graph, tasks))
    files: dict[str, bytes] = {CONFIG_FILE: cfg.render(config)}
    if template.model_py is not None:
        files[f"{cfg.VERSION}/{MODEL_FILE}"] = template.model_py
    return ModelFolder(config.name, files)


def front_step(graph: TaskGraph, model: ModelFolder) -> ensemble.Step:
    """Returns the only step of the ensemble that has the graph's name and calls its pipeline."""
    return ensemble.Step(model.name, {name: name for name in graph.inputs}, {name: name for name in graph.outputs})


def _spec(graph: TaskGraph, tasks: Iterable[TaskFront]) -> PipelineSpec:
    wanted, models = used(graph), {task.task: task.name for task in tasks}
    return PipelineSpec(
        graph=graph.name,
        inputs={name: str(TensorRef(GRAPH_INPUTS, name)) for name in graph.inputs},
        outputs={name: str(ref) for name, ref in graph.outputs.items()},
        steps=tuple(
            PipelineStep(
                model=models[task.name],
                inputs={name: str(ref) for name, ref in consumed(task, where=graph.name).items()},
                outputs={
                    name: str(TensorRef(task.name, name)) for name in task.makes if TensorRef(task.name, name) in wanted
                },
            )
            for task in graph.tasks.values()
        ),
        split=graph.fans_out,
        slo_ms=graph.slo.latency_ms,
        overload=graph.overload,
    )
