"""A graph as a native ensemble of one-task fronts, and the rules that Triton holds ensembles to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tritonclient.grpc.model_config_pb2 import ModelConfig

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.bundle import ModelFolder, TaskFront
from jigsaw_triton.compiler.front import KEEP_FILE, consumed, used
from jigsaw_triton.compiler.templates import CONFIG_FILE, Template
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import TaskGraph, TensorRef
from jigsaw_triton.runtime.spec import CLOCK_TENSOR


@dataclass(frozen=True, slots=True)
class Step:
    """A model of an ensemble.

    Attributes:
        model: Name.
        inputs: Its input -> tensor of the ensemble.
        outputs: Its output -> tensor of the ensemble; outputs that nothing uses are left out, as Triton demands.
    """

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def output_types(graph: TaskGraph) -> cfg.Tensors:
    """Types of the tensors that clients get."""
    return {name: graph.type_of(ref) for name, ref in graph.outputs.items()}


def input_types(graph: TaskGraph) -> cfg.Tensors:
    """Types of the tensors that clients send."""
    return {name: value.type for name, value in graph.inputs.items()}


def why_not(graph: TaskGraph) -> tuple[str, ...]:
    """Reasons why an ensemble cannot express a graph; empty where it can."""
    reasons = list(why_no_steps(graph))
    names: dict[TensorRef, str] = {}
    for name, ref in graph.outputs.items():
        if ref.is_graph_input:
            reasons.append(f"output {name} is the input {ref.name} as it came")
        elif ref in names:
            reasons.append(f"outputs {names[ref]} and {name} are the same tensor {ref}")
        names.setdefault(ref, name)
    return tuple(reasons)


def why_no_steps(graph: TaskGraph) -> tuple[str, ...]:
    """Reasons why only a front of the whole graph can execute a graph with python steps; empty for one without."""
    return tuple(f"{step.name} is a python step, which may answer the whole request" for step in graph.steps.values())


def check_target(graph: TaskGraph) -> None:
    """Checks that the graph can be compiled as it asks for.

    Raises:
        InputError: Its target cannot express it.
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
    """One step a task, for a graph that an ensemble can express.

    A task that follows another gets the request's clock from it: Triton tells a step neither when the request came nor
    how much of its time is left.

    Args:
        graph: Graph, in which each chain is one task.
        tasks: Its tasks; the name of each is that of the model to call.
        clocks: True if the models hand on the clock; the models of a worker do not.
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
    """The task that a task takes the request's clock from; empty for one that follows none."""
    needed = graph.tasks[name].dependencies()
    return next((task for task in graph.tasks if task in needed), "")


def _clock(task: str) -> str:
    return f"{task}.{CLOCK_TENSOR}"


def needs_whole(graph: TaskGraph, members: Sequence[Step]) -> bool:
    """True if an ensemble of these steps must be asked for all its outputs, since Triton leaves out steps by mistake.

    Where a request wants some of the outputs, Triton 24.10 leaves out steps that nothing wanted depends on. But it does
    so without looking whether an output is also a step's input, and takes an input for the first step's output; so it
    leaves out what is needed, and the request fails ("unexpected deadlock", triton-inference-server/server#7482). An
    ensemble that is the one step of another is always asked for all.
    """
    taken = {tensor for member in members for tensor in member.inputs.values()}
    return len(graph.outputs) > 1 and not (
        taken.isdisjoint(graph.outputs) and graph.inputs.keys() <= set(members[0].inputs.values())
    )


def front(graph: TaskGraph, members: Iterable[Step], template: Template, *, max_batch: int) -> ModelFolder:
    """The model that clients see.

    Args:
        graph: Graph that has the model's name, inputs and outputs.
        members: Steps in topological order.
        template: Template named `ensemble`.
        max_batch: Most items in a client's request.
    """
    return whole(graph, graph.name, members, template, max_batch=max_batch)


def whole(graph: TaskGraph, name: str, members: Iterable[Step], template: Template, *, max_batch: int) -> ModelFolder:
    """An ensemble that has the inputs and outputs of a graph."""
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
    """An ensemble.

    Args:
        name: Name of the model.
        inputs: Types by name, without a batch dimension.
        outputs: Types by name, without a batch dimension.
        members: Steps in topological order.
        template: Template named `ensemble`.
        max_batch: Most items in a request.
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
    """The rules by which tritonserver 24.10 takes or refuses an ensemble, before it is asked.

    Args:
        config: Configuration of the ensemble.
        models: Name -> configuration of what its steps may call.

    Returns:
        What is wrong; empty where nothing is.
    """
    ports = [_Port(f"input {i.name}", i.name, i.data_type, tuple(i.dims)) for i in config.input]
    ends = [_Port(f"output {o.name}", o.name, o.data_type, tuple(o.dims)) for o in config.output]
    both = sorted({p.tensor for p in ports} & {e.tensor for e in ends})
    # Triton loads such an ensemble, and its requests never end.
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
    """Where an ensemble's tensor is made or used."""

    owner: str
    tensor: str
    data_type: int
    dims: tuple[int, ...]


def _check_edges(makers: Iterable[_Port], users: Iterable[_Port]) -> list[str]:
    """One maker a tensor, each tensor used, types alike at both ends."""
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
    """No step waits for its own result."""
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
