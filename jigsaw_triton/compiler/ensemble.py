"""Compiles a graph to a native ensemble of one-task fronts, and checks Triton's rules for ensembles."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.bundle import ModelFolder, TaskFront
from jigsaw_triton.compiler.front import KEEP_FILE, consumed, used
from jigsaw_triton.compiler.model_config import ModelConfig
from jigsaw_triton.compiler.templates import CONFIG_FILE, Template
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.graph.tensors import TensorRef
from jigsaw_triton.runtime.spec import CLOCK_TENSOR


@dataclass(frozen=True, slots=True)
class Step:
    """A step of an ensemble, which calls one model.

    Attributes:
        model: Name of the model.
        inputs: Input of the model -> tensor of the ensemble.
        outputs: Output of the model -> tensor of the ensemble. Triton requires that unused outputs be absent.
    """

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def output_types(graph: TaskGraph) -> cfg.Tensors:
    """Returns the types of the tensors that clients receive, by name."""
    return {name: graph.type_of(ref) for name, ref in graph.outputs.items()}


def input_types(graph: TaskGraph) -> cfg.Tensors:
    """Returns the types of the tensors that clients send, by name."""
    return {name: value.type for name, value in graph.inputs.items()}


def why_not(graph: TaskGraph) -> tuple[str, ...]:
    """Returns the reasons why an ensemble cannot express a graph; empty if it can."""
    reasons = list(why_no_steps(graph))
    names: dict[TensorRef, str] = {}
    for name, ref in graph.outputs.items():
        if ref.is_graph_input:
            reasons.append(f"output {name} is the unchanged input {ref.name}")
        elif ref in names:
            reasons.append(f"outputs {names[ref]} and {name} are the same tensor {ref}")
        names.setdefault(ref, name)
    return tuple(reasons)


def why_no_steps(graph: TaskGraph) -> tuple[str, ...]:
    """Returns the reasons why only a front of the whole graph can execute its Python steps; empty without steps."""
    return tuple(f"{step.name} is a Python step, which may answer the whole request" for step in graph.steps.values())


def check_target(graph: TaskGraph) -> None:
    """Checks that a graph's target can express the graph.

    Raises:
        InputError: The target cannot express the graph.
    """
    reasons = {"ensemble": why_not, "bls": why_no_steps}.get(graph.target, lambda _: ())(graph)
    if reasons:
        kind = "an ensemble" if graph.target == "ensemble" else "a BLS pipeline"
        raise InputError(
            f"{kind} cannot express the graph: {'; '.join(reasons)}",
            where=graph.name,
            hint="set `target: graph` or leave `target` out",
        )


def steps(graph: TaskGraph, tasks: Iterable[TaskFront], *, clocks: bool = True) -> tuple[Step, ...]:
    """Returns one step for each task of a graph that an ensemble can express.

    Triton does not pass a request's arrival time or remaining time to a step. A task therefore receives the request's
    clock from a task that it follows.

    Args:
        graph: Graph, in which each chain is one task.
        tasks: Tasks of the graph, each under the name of the model to call.
        clocks: True if the models pass on the clock. The models of a worker do not.
    """
    names = {ref: str(ref) for ref in used(graph)}
    names |= {ref: ref.name for ref in names if ref.is_graph_input}
    names |= {ref: name for name, ref in graph.outputs.items()}
    fronts = list(tasks)
    before = {front.task: _before(graph, front.task) for front in fronts}
    found = []
    for front in fronts:
        task = graph.tasks[front.task]
        made = {name: TensorRef(task.name, name) for name in task.makes}
        inputs = {name: names[ref] for name, ref in consumed(task, where=graph.name).items()}
        outputs = {name: names[ref] for name, ref in made.items() if ref in names}
        if clocks and before[task.name]:
            inputs[CLOCK_TENSOR] = _clock(before[task.name])
        if clocks and task.name in before.values():
            outputs[CLOCK_TENSOR] = _clock(task.name)
        found.append(Step(model=front.name, inputs=inputs, outputs=outputs))
    return tuple(found)


def _before(graph: TaskGraph, name: str) -> str:
    """Returns the task from which a task receives the request's clock; empty if it follows none."""
    needed = graph.tasks[name].dependencies()
    return next((task for task in graph.tasks if task in needed), "")


def _clock(task: str) -> str:
    return f"{task}.{CLOCK_TENSOR}"


def needs_whole(graph: TaskGraph, members: Sequence[Step]) -> bool:
    """Returns True if requests to an ensemble of these steps must ask for all outputs, to avoid a fault of Triton.

    If a request asks for some of the outputs, Triton 24.10 skips the steps that these do not depend on. It does not
    check whether an output is also an input of a step, and it takes an input for an output of the first step. It can
    therefore skip steps that are needed, and the request fails ("unexpected deadlock",
    triton-inference-server/server#7482). The remedy is an outer ensemble with this one as its only step, since it
    always asks for all outputs.
    """
    taken = {tensor for member in members for tensor in member.inputs.values()}
    return len(graph.outputs) > 1 and not (
        taken.isdisjoint(graph.outputs) and graph.inputs.keys() <= set(members[0].inputs.values())
    )


def front(graph: TaskGraph, members: Iterable[Step], template: Template, *, max_batch: int) -> ModelFolder:
    """Compiles the model that clients see.

    Args:
        graph: Graph with the name, inputs and outputs of the model.
        members: Steps in topological order.
        template: Template named `ensemble`.
        max_batch: Largest number of items in a client's request.
    """
    return whole(graph, graph.name, members, template, max_batch=max_batch)


def whole(graph: TaskGraph, name: str, members: Iterable[Step], template: Template, *, max_batch: int) -> ModelFolder:
    """Compiles an ensemble with the inputs and outputs of a graph."""
    return model(name, input_types(graph), output_types(graph), members, template, max_batch=max_batch)


def model(
    name: str,
    inputs: cfg.Tensors,
    outputs: cfg.Tensors,
    members: Iterable[Step],
    template: Template,
    *,
    max_batch: int,
) -> ModelFolder:
    """Compiles an ensemble.

    Args:
        name: Name of the model.
        inputs: Types of the inputs, by name, without a batch dimension.
        outputs: Types of the outputs, by name, without a batch dimension.
        members: Steps in topological order.
        template: Template named `ensemble`.
        max_batch: Largest number of items in a request.
    """
    config = cfg.parse(template.config_text, where=f"{template.name}/{CONFIG_FILE}")
    config.name = name
    config.max_batch_size = max_batch
    cfg.set_tensors(config, inputs, outputs)
    config.ensemble_scheduling.ClearField("step")
    for member in members:
        config.ensemble_scheduling.step.add(
            model_name=member.model, model_version=-1, input_map=member.inputs, output_map=member.outputs
        )
    return ModelFolder(name, {CONFIG_FILE: cfg.render(config), KEEP_FILE: b""})


def check_ensemble(config: ModelConfig, models: Mapping[str, ModelConfig]) -> tuple[str, ...]:
    """Checks the rules by which tritonserver 24.10 accepts or rejects an ensemble.

    Args:
        config: Configuration of the ensemble.
        models: Configurations of the models that its steps may call, by name.

    Returns:
        Violations; empty if there are none.
    """
    ports = [_Port(f"input {i.name}", i.name, i.data_type, tuple(i.dims)) for i in config.input]
    ends = [_Port(f"output {o.name}", o.name, o.data_type, tuple(o.dims)) for o in config.output]
    both = sorted({p.tensor for p in ports} & {e.tensor for e in ends})
    # Triton loads such an ensemble, but its requests never end.
    reasons = [f"{name} is both an input and an output" for name in both]
    for step in config.ensemble_scheduling.step:
        model = models.get(step.model_name)
        if model is None:
            reasons.append(f"there is no model {step.model_name}")
            continue
        if 0 < model.max_batch_size < config.max_batch_size:
            reasons.append(f"{model.name} takes batches of {model.max_batch_size}, not of {config.max_batch_size}")
        for mapping, tensors, kind, found in (
            (step.input_map, model.input, "input", ends),
            (step.output_map, model.output, "output", ports),
        ):
            known = {t.name: t for t in tensors}
            reasons += [f"{model.name} has no {kind} {name}" for name in sorted(mapping) if name not in known]
            found.extend(
                _Port(f"{model.name}.{name}", mapping[name], t.data_type, tuple(t.dims))
                for name, t in known.items()
                if name in mapping
            )
        needed = [i.name for i in model.input if not i.optional]
        reasons += [f"input {name} of {model.name} is not mapped" for name in needed if name not in step.input_map]
    return (*reasons, *_check_edges(ports, ends), *_check_order(config))


@dataclass(frozen=True, slots=True)
class _Port:
    """A producer or consumer of an ensemble's tensor."""

    owner: str
    tensor: str
    data_type: int
    dims: tuple[int, ...]


def _check_edges(makers: Iterable[_Port], users: Iterable[_Port]) -> list[str]:
    """Checks that each tensor has one producer, at least one consumer, and compatible types at both ends."""
    reasons = []
    made: dict[str, _Port] = {}
    for maker in makers:
        if maker.tensor in made:
            reasons.append(f"{made[maker.tensor].owner} and {maker.owner} both make {maker.tensor}")
        made.setdefault(maker.tensor, maker)
    unused = set(made)
    for user in users:
        unused.discard(user.tensor)
        source = made.get(user.tensor)
        if source is None:
            reasons.append(f"nothing makes {user.tensor} for {user.owner}")
            continue
        if source.data_type != user.data_type:
            types = (cfg.data_type_name(source.data_type), cfg.data_type_name(user.data_type))
            reasons.append(f"{user.tensor} is {types[0]} from {source.owner} but {types[1]} for {user.owner}")
        if not _alike(source.dims, user.dims):
            dims = (cfg.shape_text(source.dims), cfg.shape_text(user.dims))
            reasons.append(f"{user.tensor} is {dims[0]} from {source.owner} but {dims[1]} for {user.owner}")
    return reasons + [f"nothing uses {tensor}" for tensor in sorted(unused)]


def _alike(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return len(one) == len(other) and all(a == b or a < 0 or b < 0 for a, b in zip(one, other, strict=True))


def _check_order(config: ModelConfig) -> list[str]:
    """Checks that no step waits for its own result."""
    waiting = list(config.ensemble_scheduling.step)
    ready = {i.name for i in config.input}
    while waiting:
        able = [step for step in waiting if ready.issuperset(step.input_map.values())]
        if not able:
            names = ", ".join(step.model_name for step in waiting)
            return [f"steps that can never start: {names}"]
        ready.update(tensor for step in able for tensor in step.output_map.values())
        waiting = [step for step in waiting if step not in able]
    return []
