"""Fronts: models at the gateway that accept requests and call workers to execute the tasks of a graph.

A front executes a whole graph (`target: graph`), or one task as a step of an ensemble or a BLS pipeline. It is a model
of the compiled backend, which reads the front's specification (`runtime.spec.FrontSpec`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler import names
from jigsaw_triton.compiler.bundle import ModelFolder, RouteEntry, TaskFront
from jigsaw_triton.compiler.model_config import ModelConfig
from jigsaw_triton.compiler.templates import CONFIG_FILE, Template
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import PythonStep, Task, TaskGraph, When
from jigsaw_triton.graph.tensors import GRAPH_INPUTS, TensorRef, TensorType
from jigsaw_triton.runtime.spec import (
    CLOCK_TENSOR,
    CONDITION_INPUT,
    BoundaryTensor,
    Condition,
    FrontSpec,
    InputSpec,
    Mode,
    OutputSpec,
    TaskSpec,
)

MAX_BATCH = 64
"""Largest number of items that clients may send in one request."""

FIRST_CALL_MS = 10_000.0
"""Minimum deadline of calls without profiled times, and of the first calls of a model, which take longer."""

KEEP_FILE = f"{cfg.VERSION}/.keep"
"""Empty file that creates a front's version folder, which Triton requires."""

_CLOCK = TensorType("INT64", (2,))


def task_specs(graph: TaskGraph, routes: Mapping[str, str], rest_ms: Mapping[str, float]) -> tuple[TaskSpec, ...]:
    """Returns the specifications of a graph's tasks and Python steps, in topological order.

    Args:
        graph: Graph, in which each chain is one task.
        routes: Task or step -> name of its route.
        rest_ms: Task -> milliseconds of the longest path that follows it; see `service.rest_ms`.
    """
    wanted = used(graph)
    nodes = list(graph.in_order())
    return tuple(
        _step(graph, node, routes[node.name], wanted)
        if isinstance(node, PythonStep)
        else _task(graph, node, routes[node.name], wanted, rest_ms.get(node.name, 0.0), entry=node is nodes[0])
        for node in nodes
    )


def graph_front(
    graph: TaskGraph,
    tasks: Sequence[TaskFront],
    template: Template,
    *,
    rest_ms: Mapping[str, float],
    capacity_rps: float = 0.0,
) -> ModelFolder:
    """Compiles the front that executes a whole graph under the graph's own name.

    Args:
        graph: Graph, in which each chain is one task.
        tasks: Tasks and steps of the graph with their routes.
        template: Template named `front`.
        rest_ms: Task -> milliseconds of the longest path that follows it.
        capacity_rps: Requests per second that the plan can carry.

    Raises:
        InputError: A configuration cannot express a tensor of the graph.
    """
    inputs = {name: value.type for name, value in graph.inputs.items()}
    outputs = {name: graph.type_of(ref) for name, ref in graph.outputs.items()}
    spec = FrontSpec(
        graph=graph.name,
        slo_ms=graph.slo.latency_ms,
        inputs=tuple(BoundaryTensor(name, t.dtype, t.shape) for name, t in inputs.items()),
        outputs=tuple(
            BoundaryTensor(name, outputs[name].dtype, outputs[name].shape, str(ref))
            for name, ref in graph.outputs.items()
        ),
        tasks=task_specs(graph, {task.task: task.name for task in tasks}, rest_ms),
        overload=graph.overload,
        split=graph.fans_out or bool(graph.steps),
        capacity_rps=capacity_rps,
    )
    config = _config(template, graph.name, MAX_BATCH)
    cfg.set_tensors(config, inputs, outputs)
    cfg.set_spec(config, spec)
    return ModelFolder(graph.name, {CONFIG_FILE: cfg.render(config), KEEP_FILE: b""})


def task_front(
    graph: TaskGraph,
    task: Task,
    route: tuple[RouteEntry, ...],
    template: Template,
    *,
    rest_ms: float,
    generation: int,
    blaming: bool,
) -> TaskFront:
    """Compiles a one-task front, which an ensemble or a BLS pipeline calls.

    Args:
        graph: Graph of the task.
        task: Task to execute.
        route: Workers' models that execute the task.
        template: Template named `front`.
        rest_ms: Milliseconds of the longest path that follows the task.
        generation: Number in the front's name.
        blaming: True if a BLS pipeline calls the front. The pipeline learns only from the message which party a failure
            blames.

    Raises:
        InputError: A configuration cannot express a tensor of the task, or an input has a reserved name.
    """
    where = f"{graph.name}.{task.name}"
    name = names.route(graph.name, task.name, generation)
    refs = consumed(task, where=where)
    inputs = {key: graph.type_of(ref) for key, ref in refs.items()}
    wanted = used(graph)
    made = [key for key in task.makes if TensorRef(task.name, key) in wanted] or list(task.makes)
    outputs = {key: graph.type_of(TensorRef(task.name, key)) for key in made}
    first = next(iter(graph.in_order()))
    kept = frozenset(TensorRef(task.name, key) for key in made)
    spec = _task(graph, task, name, kept, rest_ms, entry=task is first)
    own = {str(ref): f"{GRAPH_INPUTS}.{key}" for key, ref in refs.items()}
    spec = replace(
        spec,
        followers=tuple(other.name for other in graph.in_order() if task.name in other.dependencies()),
        inputs=tuple(replace(item, tensor=f"{GRAPH_INPUTS}.{item.name}") for item in spec.inputs),
        condition=replace(spec.condition, tensor=own[spec.condition.tensor]) if spec.condition is not None else None,
    )
    front = FrontSpec(
        graph=graph.name,
        slo_ms=graph.slo.latency_ms,
        inputs=tuple(BoundaryTensor(key, t.dtype, t.shape) for key, t in inputs.items()),
        outputs=tuple(BoundaryTensor(key, t.dtype, t.shape, f"{task.name}.{key}") for key, t in outputs.items()),
        tasks=(spec,),
        overload=graph.overload,
        clock=True,
        blaming=blaming,
    )
    config = _config(template, name, max(MAX_BATCH, *(entry.batch for entry in route)))
    cfg.set_tensors(config, {**inputs, CLOCK_TENSOR: _CLOCK}, {**outputs, CLOCK_TENSOR: _CLOCK})
    next(i for i in config.input if i.name == CLOCK_TENSOR).optional = True
    cfg.set_spec(config, front)
    return TaskFront(name, task.name, route, ModelFolder(name, {CONFIG_FILE: cfg.render(config), KEEP_FILE: b""}))


def used(graph: TaskGraph) -> frozenset[TensorRef]:
    """Returns the tensors that a task, a Python step or a client receives."""

    def refs() -> Iterator[TensorRef]:
        for task in graph.tasks.values():
            yield from task.inputs.values()
            if task.for_each is not None:
                yield task.for_each
            if task.when is not None:
                yield task.when.tensor
        for step in graph.steps.values():
            yield from step.inputs.values()
        yield from graph.outputs.values()

    return frozenset(refs())


def consumed(task: Task, *, where: str) -> dict[str, TensorRef]:
    """Returns the inputs of a task's one-task front: those of the task, and the tensor of its condition.

    Raises:
        InputError: An input has a name that is reserved for the front.
    """
    for name in (CONDITION_INPUT, CLOCK_TENSOR):
        if name in task.inputs:
            raise InputError(f"no input may be named {name}", where=where, hint="rename the input")
    if task.when is None:
        return dict(task.inputs)
    return {**task.inputs, CONDITION_INPUT: task.when.tensor}


def mode(graph: TaskGraph, task: Task) -> Mode:
    """Returns the mode of a task's calls; see `runtime.spec.Mode`."""
    if task.for_each is not None or task.when is not None:
        return "rows"
    made = yields(graph, task)
    types = [graph.input_type(task, name) for name in task.inputs]
    # The number of an item's rows does not count as part of its shape.
    types += [kind.row() if name in made else kind for name, kind in task.outputs.items()]
    return "items" if any(cfg.varies(tensor) for tensor in types) else "stack"


def one_by_one(graph: TaskGraph, task: Task) -> bool:
    """Returns True if each item of a task is a separate call to a worker, unless the worker's model pads rows.

    The reason is that answers of different shapes cannot be stacked.
    """
    return mode(graph, task) == "items" or bool(yields(graph, task))


def yields(graph: TaskGraph, task: Task) -> tuple[str, ...]:
    """Returns the outputs of a task over whose rows other tasks iterate. Each item may have any number of rows."""
    return tuple(name for name in task.outputs if graph.makes_rows(TensorRef(task.name, name)))


def _config(template: Template, name: str, max_batch: int) -> ModelConfig:
    config = cfg.parse(template.config_text, where=f"{template.name}/{CONFIG_FILE}")
    config.name = name
    config.max_batch_size = max_batch
    # Without a batcher and with one instance, a request passes through only one thread before it reaches the backend.
    config.ClearField("dynamic_batching")
    cfg.set_instances(config, 1)
    return config


def _task(
    graph: TaskGraph, task: Task, route: str, wanted: frozenset[TensorRef], rest_ms: float, *, entry: bool
) -> TaskSpec:
    types = {name: graph.input_type(task, name) for name in task.inputs}
    counts = {name: counted for name, counted in task.counts.items() if TensorRef(task.name, name) in wanted}
    outputs = [name for name in task.outputs if TensorRef(task.name, name) in wanted or name in counts.values()]
    return TaskSpec(
        name=task.name,
        route=route,
        mode=mode(graph, task),
        inputs=tuple(
            InputSpec(name, t.dtype, t.shape, str(task.inputs[name]), graph.iterated(task, task.inputs[name]))
            for name, t in types.items()
        ),
        outputs=_outputs(graph, task, outputs or list(task.outputs)),
        deadline_ms=_deadline_ms(graph),
        condition=_condition(task.when),
        counts=counts,
        variants=tuple(variant.name for variant in task.variants),
        rest_ms=rest_ms,
        retry=task.retry,
        entry=entry,
    )


def _step(graph: TaskGraph, step: PythonStep, route: str, wanted: frozenset[TensorRef]) -> TaskSpec:
    types = {name: graph.input_type(step, name) for name in step.inputs}
    outputs = [name for name in step.outputs if TensorRef(step.name, name) in wanted] or list(step.outputs)
    return TaskSpec(
        name=step.name,
        route=route,
        mode="items",
        inputs=tuple(InputSpec(name, t.dtype, t.shape, str(step.inputs[name])) for name, t in types.items()),
        outputs=_outputs(graph, step, outputs),
        deadline_ms=_deadline_ms(graph),
        step=True,
        retry=step.retry,
    )


def _outputs(graph: TaskGraph, node: Task | PythonStep, kept: Iterable[str]) -> tuple[OutputSpec, ...]:
    types = {name: node.outputs[name] for name in kept}
    return tuple(
        OutputSpec(name, t.dtype, t.shape, graph.makes_rows(TensorRef(node.name, name))) for name, t in types.items()
    )


def _deadline_ms(graph: TaskGraph) -> float:
    """Returns the deadline of calls without profiled times: no call within the SLO may count as hanging."""
    return max(FIRST_CALL_MS, graph.slo.latency_ms)


def _condition(when: When | None) -> Condition | None:
    return Condition(str(when.tensor), when.above, when.below) if when is not None else None
