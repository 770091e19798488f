"""Compiles Python steps, the user's own code between tasks, to models of a separate worker on the host's CPU.

Code that hangs or crashes affects only this steps worker, which is restarted like any other worker.
"""

import math

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler import names
from jigsaw_triton.compiler.bundle import ModelFolder, Worker, WorkerModel
from jigsaw_triton.compiler.templates import CONFIG_FILE, MODEL_FILE, Template
from jigsaw_triton.compiler.worker_config import digest
from jigsaw_triton.graph.model import PythonStep, TaskGraph
from jigsaw_triton.graph.tensors import TensorType
from jigsaw_triton.runtime.spec import ANSWER_PREFIX, ANSWERED_OUTPUT, TOKEN_OUTPUT, StepSpec, TensorSpec
from jigsaw_triton.runtime.steps import STEP_FILE

MAX_INSTANCES = 8
"""Largest number of processes of one step."""

BUSY = 0.5
"""Planned utilisation of a step's processes."""

TOKEN = TensorType("INT64", (1,))


def steps_worker(graph: TaskGraph, template: Template, *, demand_rps: float, generation: int) -> Worker:
    """Compiles the worker of a graph's Python steps.

    Args:
        graph: Graph with at least one step.
        template: Template named `step`.
        demand_rps: Demand that the graph is planned for.
        generation: Number in the names of the models.
    """
    models = (_model(graph, step, template, demand_rps, generation) for step in graph.steps.values())
    return Worker(names.steps_worker(graph.name), tuple(sorted(models, key=lambda model: model.name)))


def _model(graph: TaskGraph, step: PythonStep, template: Template, demand_rps: float, generation: int) -> WorkerModel:
    config = cfg.parse(template.config_text, where=f"{template.name}/{CONFIG_FILE}")
    config.name = names.step_model(graph.name, step.name, generation)
    config.max_batch_size = 1
    inputs = {name: graph.input_type(step, name) for name in step.inputs}
    answers = {name: graph.type_of(ref) for name, ref in graph.outputs.items()}
    outputs = {
        **step.outputs,
        **{f"{ANSWER_PREFIX}{name}": kind for name, kind in answers.items()},
        ANSWERED_OUTPUT: TensorType("UINT8", (1,)),
        TOKEN_OUTPUT: TOKEN,
    }
    cfg.set_tensors(config, inputs, outputs)
    spec = StepSpec(step.name, step.file, _specs(inputs), _specs(step.outputs), _specs(answers))
    cfg.set_spec(config, spec)
    files: dict[str, bytes] = {f"{cfg.VERSION}/{STEP_FILE}": step.source.encode()}
    if template.model_py is not None:
        files[f"{cfg.VERSION}/{MODEL_FILE}"] = template.model_py
    content = digest(config, files, str)
    instances = min(MAX_INSTANCES, max(1, math.ceil(demand_rps * step.latency_ms / 1000 / BUSY)))
    cfg.set_instances(config, instances)
    return WorkerModel(
        folder=ModelFolder(config.name, {CONFIG_FILE: cfg.render(config), **files}),
        graph=graph.name,
        task=step.name,
        variant="",
        instances=instances,
        batch=1,
        digest=digest(config, files, str),
        tokens=1,
        content=content,
    )


def _specs(tensors: cfg.Tensors) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, kind.dtype, kind.shape) for name, kind in tensors.items())
