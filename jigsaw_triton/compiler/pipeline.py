"""A graph as a BLS model: for what an ensemble cannot express."""

import math
from collections.abc import Iterable, Sequence

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler import ensemble, names
from jigsaw_triton.compiler.bundle import Dispatcher, ModelFolder
from jigsaw_triton.compiler.dispatcher import MAX_BATCH, call_timeout_ms, consumed
from jigsaw_triton.compiler.templates import CONFIG_FILE, MODEL_FILE, Template
from jigsaw_triton.graph.model import GRAPH_INPUTS, PythonStep, Task, TaskGraph, TensorRef
from jigsaw_triton.runtime.admission import MOST_UNDER_WAY
from jigsaw_triton.runtime.spec import Code, PipelineSpec, PipelineStep, TensorSpec
from jigsaw_triton.runtime.steps import FOLDER

MAX_INSTANCES = 8
"""Of a pipeline; each is a process at the gateway (17 MB, and what python steps load)."""


def pipeline(
    graph: TaskGraph, dispatchers: Sequence[Dispatcher], template: Template, *, generation: int, apart: bool = False
) -> ModelFolder:
    """Compiles the BLS model: as many instances as it takes to keep the workers busy, each with a next batch waiting.

    Args:
        graph: That it runs.
        dispatchers: One a task, in topological order.
        template: Named `pipeline`.
        generation: In its name.
        apart: Whether it is the form of a graph that takes its chains apart.
    """
    config = cfg.parse(template.config_text, where=f"{template.name}/{CONFIG_FILE}")
    config.name = names.pipeline(graph.name, generation, apart=apart)
    config.max_batch_size = MAX_BATCH
    cfg.set_tensors(config, ensemble.input_types(graph), ensemble.output_types(graph), ragged=True)
    at_workers = sum(entry.batch * entry.slots for dispatcher in dispatchers for entry in dispatcher.route)
    cfg.set_instances(config, min(MAX_INSTANCES, math.ceil(2 * at_workers / MOST_UNDER_WAY)))
    cfg.set_spec(config, _spec(graph, dispatchers))
    files: dict[str, bytes] = {CONFIG_FILE: cfg.render(config)}
    if template.model_py is not None:
        files[f"{cfg.VERSION}/{MODEL_FILE}"] = template.model_py
    for step in graph.steps.values():
        files[f"{cfg.VERSION}/{FOLDER}/{step.name}.py"] = step.source.encode()
    return ModelFolder(config.name, files)


def front_step(graph: TaskGraph, model: ModelFolder) -> ensemble.Step:
    """The one step of the ensemble that keeps the graph's name in front of its pipeline."""
    return ensemble.Step(model.name, {name: name for name in graph.inputs}, {name: name for name in graph.outputs})


def _spec(graph: TaskGraph, dispatchers: Iterable[Dispatcher]) -> PipelineSpec:
    used, models = ensemble.used(graph), {dispatcher.task: dispatcher.name for dispatcher in dispatchers}
    return PipelineSpec(
        graph=graph.name,
        inputs={name: str(TensorRef(GRAPH_INPUTS, name)) for name in graph.inputs},
        outputs={name: str(ref) for name, ref in graph.outputs.items()},
        steps=tuple(
            PipelineStep(
                model=models.get(node.name, node.name),
                inputs={
                    n: str(r)
                    for n, r in (consumed(node, where=graph.name) if isinstance(node, Task) else node.inputs).items()
                },
                outputs={
                    name: str(TensorRef(node.name, name)) for name in node.makes if TensorRef(node.name, name) in used
                },
                code=_code(graph, node) if isinstance(node, PythonStep) else None,
            )
            for node in graph.in_order()
        ),
        split=graph.fans_out or bool(graph.steps),
        answers=_specs(ensemble.output_types(graph)) if graph.steps else (),
        slo_ms=graph.slo.latency_ms,
        call_timeout_ms=math.ceil(call_timeout_ms(graph)),
    )


def _code(graph: TaskGraph, step: PythonStep) -> Code:
    yields = tuple(name for name in step.outputs if graph.makes_rows(TensorRef(step.name, name)))
    return Code(step.file, _specs(step.outputs), yields)


def _specs(tensors: cfg.Tensors) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, kind.dtype, kind.shape) for name, kind in tensors.items())
