"""Compares the inputs and outputs of a model with those that a graph declares for its task."""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from jigsaw_triton.graph.model import Task, TaskGraph
from jigsaw_triton.graph.reference import INPUTS, TASKS
from jigsaw_triton.graph.tensors import TensorType
from jigsaw_triton.models.interface import Interface, ModelTensor
from jigsaw_triton.spec.source import Path
from jigsaw_triton.spec.words import nearest


class Mismatch(NamedTuple):
    """A difference between a model and its task.

    Attributes:
        path: Entry of graph.yaml to change.
        message: Description of what is wrong.
        hint: Line to write instead.
    """

    path: Path
    message: str
    hint: str


def input_mismatches(graph: TaskGraph, task: Task, model: str, found: Interface) -> Iterator[Mismatch]:
    """Yields the differences between the inputs of a task and those of a model.

    Args:
        graph: Graph of the task.
        task: The task.
        model: Name of the model in messages.
        found: Inputs and outputs of the model.
    """
    path: Path = (*TASKS, task.name, "inputs")
    required = found.inputs.keys() - found.optional
    lacking = [name for name in found.inputs if name in required and name not in task.inputs]
    unknown = [name for name in task.inputs if name not in found.inputs]
    for name in unknown:
        hint = nearest(name, found.inputs, "inputs of the model")
        alike = _alike(graph.input_type(task, name).dtype, unknown, {key: found.inputs[key] for key in lacking})
        if alike is not None:
            hint = f"write {alike}: {_source(task, name, alike, found)}"
        yield Mismatch((*path, name), f"{model} has no input '{name}'", hint)
    if len(unknown) != len(lacking):
        for name in lacking:
            hint = f"add {name} to the inputs of {task.name}; the model expects {_words(found.inputs[name])}"
            yield Mismatch(path, f"{model} needs the input '{name}', which {task.name} lacks", hint)
    for name in task.inputs:
        if name in found.inputs:
            yield from _input(graph, task, name, model, found.inputs[name])


def output_mismatches(task: Task, model: str, found: Interface, *, exact: bool) -> Iterator[Mismatch]:
    """Yields the differences between the outputs of a task and those of a model.

    Args:
        task: The task.
        model: Name of the model in messages.
        found: Inputs and outputs of the model.
        exact: True if the sizes of the outputs' dimensions are right, as after a run. Those in a file often are not:
            exporters write the sizes of their example.
    """
    path: Path = (*TASKS, task.name, "outputs")
    unknown = [name for name in task.outputs if name not in found.outputs]
    spare = {name: tensor for name, tensor in found.outputs.items() if name not in task.outputs}
    for name in unknown:
        hint = nearest(name, found.outputs, "outputs of the model")
        alike = _alike(task.outputs[name].dtype, unknown, spare)
        if alike is not None:
            hint = f"write {_line(alike, spare[alike], task.outputs[name].shape)}"
        yield Mismatch((*path, name), f"{model} has no output '{name}'", hint)
    for name, declared in task.outputs.items():
        if name not in found.outputs:
            continue
        tensor, scalar = found.outputs[name], name in task.scalar_outputs
        wrong = _wrong(declared, tensor, scalar=scalar, exact=exact, fixed=False)
        if wrong is not None:
            message = f"{model} returns '{name}' as {wrong}, but {task.name} declares {_declared(declared, scalar)}"
            yield Mismatch((*path, name), message, _remedy(name, tensor, declared.shape))


def fixed_batches(task: Task, path: Path, model: str, found: Interface) -> Iterator[Mismatch]:
    """Yields a mistake if a model takes batches of a single size above 1: the last items that wait are often fewer.

    Args:
        task: Task of the model.
        path: Entry of graph.yaml that names the model.
        model: Name of the model in messages.
        found: Inputs and outputs of the model.
    """
    for name, tensor in found.inputs.items():
        if name in task.inputs and tensor.shape and tensor.shape[0] > 1:
            message = f"{model} takes '{name}' in batches of {tensor.shape[0]} only, but is served batches of any size"
            hint = "export the model with a batch dimension that varies"
            if model.lower().endswith(".onnx"):
                command = f"jigsaw-triton variants {model} --kind batch"
                hint += f", or replace it by what `{command}`, run in the folder of the graph, makes of it"
            yield Mismatch(path, message, hint)
            return


def _input(graph: TaskGraph, task: Task, name: str, model: str, tensor: ModelTensor) -> Iterator[Mismatch]:
    given, ref, scalar = graph.input_type(task, name), task.inputs[name], name in task.scalar_inputs
    wrong = _wrong(given, tensor, scalar=scalar, exact=True, fixed=True)
    if wrong is None:
        return
    message = f"{model} takes '{name}' as {wrong}, but {task.name} gets {_declared(given, scalar)} from {ref}"
    own: Path = (*TASKS, task.name, "inputs", name)
    if tensor.item is None or tensor.dtype is None:
        yield Mismatch(own, message, _remedy(name, tensor, given.shape))
    elif tensor.item == () and given == TensorType(tensor.dtype, (1,)):
        yield Mismatch(own, message, f"write {name}: {{from: {ref}, shape: []}}")
    elif scalar and given.dtype == tensor.dtype and tensor.item == given.shape:
        yield Mismatch(own, message, f"write {name}: {ref}")
    elif ref.is_graph_input and not graph.iterated(task, ref):
        served = ModelTensor(tensor.dtype, tensor.shape if tensor.item else (-1, 1))
        yield Mismatch((*INPUTS, ref.name), message, f"write {_line(ref.name, served, given.shape)}")
    else:
        hint = f"change the model, or convert {ref} in a Python step"
        yield Mismatch(own, message, hint)


def _wrong(declared: TensorType, tensor: ModelTensor, *, scalar: bool, exact: bool, fixed: bool) -> str | None:
    """Returns the type of a model's tensor if it differs from the declared one; None if they agree.

    Args:
        declared: Type in the graph.
        tensor: Tensor of the model.
        scalar: True if the graph declares it with the batch dimension alone.
        exact: True if sizes are compared, not only the number of dimensions.
        fixed: True if a dimension that may vary in the graph must not be fixed in the model.
    """
    shape = () if scalar else declared.shape
    item = tensor.item
    if tensor.dtype == declared.dtype and tensor.shape is None:
        return None
    same = item is not None and len(item) == len(shape)
    if same and exact:
        assert item is not None
        same = all(a == b or a == -1 or (b == -1 and not fixed) for a, b in zip(item, shape, strict=True))
    return None if same and tensor.dtype == declared.dtype else _words(tensor)


def _alike(dtype: str, unknown: Collection[str], spare: Mapping[str, ModelTensor]) -> str | None:
    """Returns the tensor of a model that a declaration with a wrong name must mean; None if there may be several.

    Args:
        dtype: Declared data type.
        unknown: Declared names that the model does not have.
        spare: Tensors of the model that are not declared.
    """
    usable = [name for name, tensor in spare.items() if tensor.dtype is not None]
    same = [name for name in usable if spare[name].dtype == dtype]
    return same[0] if len(same) == 1 else usable[0] if len(unknown) == len(spare) == len(usable) == 1 else None


def _remedy(name: str, tensor: ModelTensor, declared: tuple[int, ...]) -> str:
    if tensor.dtype is None:
        return "export the model with tensors; skl2onnx does so with options={'zipmap': False}"
    if tensor.shape == ():
        return "give it a batch dimension"
    return f"write {_line(name, tensor, declared)}"


def _line(name: str, tensor: ModelTensor, declared: Collection[int]) -> str:
    """Returns the entry that declares a tensor, with the declared sizes of dimensions that the model leaves open."""
    item = list(tensor.item) if tensor.item is not None else list(declared)
    if len(item) == len(declared):
        item = [known if size == -1 else size for size, known in zip(item, declared, strict=True)]
    return f"{name}: {{dtype: {tensor.dtype}, shape: {item}}}"


def _source(task: Task, name: str, model_name: str, found: Interface) -> str:
    """Returns the entry of an input under the name that the model has for it."""
    scalar = name in task.scalar_inputs or found.inputs[model_name].item == ()
    return f"{{from: {task.inputs[name]}, shape: []}}" if scalar else str(task.inputs[name])


def _declared(kind: TensorType, scalar: bool) -> str:
    return f"{kind.dtype} {[] if scalar else list(kind.shape)}"


def _words(tensor: ModelTensor) -> str:
    if tensor.dtype is None:
        return "something other than a tensor of Triton's types"
    if tensor.shape is None:
        return tensor.dtype
    if tensor.item is None:
        return f"{tensor.dtype} without a batch dimension"
    return f"{tensor.dtype} {list(tensor.item)}"


def described(tensors: Mapping[str, ModelTensor]) -> str:
    """Returns the names and types of tensors for a message."""
    return ", ".join(f"{name} {_words(tensor)}" for name, tensor in tensors.items()) or "none"
