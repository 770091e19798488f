"""Makes a task's input tensors for one request of its graph, and batches of them. Its only I/O is reading samples."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import Task, TaskGraph
from jigsaw_triton.graph.tensors import GRAPH_INPUTS, TensorRef, TensorType
from jigsaw_triton.runtime.dtypes import BF16, Array, Arrays, to_numpy

Tensors = Mapping[TensorRef, Array]
"""Tensors of one request with the types of `TaskGraph.type_of`: without a batch dimension, with their rows."""

Batch = tuple[Arrays, ...]
"""Requests that form one batch: a single request with all items, or one request per item."""

VARYING = 32
"""Size of a variable dimension in made-up data."""

MOST_BATCHES = 64
"""Largest number of prepared batches; the loop repeats them."""


def sample_inputs(graph: TaskGraph) -> dict[TensorRef, Array]:
    """Returns the graph inputs that have samples.

    Raises:
        InputError: A sample is no tensor, or does not have the type of its input.
    """
    return {TensorRef(GRAPH_INPUTS, name): _sample(graph, name) for name in graph.inputs if name in graph.samples}


def _sample(graph: TaskGraph, name: str) -> Array:
    path, wanted = graph.samples[name], graph.inputs[name].type
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        hint = "save the tensor of one request, without a batch dimension, with numpy.save"
        raise InputError(f"the sample of {name} cannot be read ({error})", where=str(path), hint=hint) from error
    found = conforming(array, wanted)
    if found is None:
        raise InputError(
            f"the sample of {name} is {array.dtype} {list(array.shape)}, but the input is {wanted.dtype} "
            f"{list(wanted.shape)}",
            where=str(path),
            hint="save the tensor of one request, without a batch dimension, with numpy.save",
        )
    return found


def conforming(array: Array, wanted: TensorType) -> Array | None:
    """Returns an array as a tensor of a type, with text as bytes; None if it is of another type."""
    if wanted.dtype == "BYTES" and array.dtype.kind in "SU":
        array = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
        array = array.astype(np.object_)
    fits = len(array.shape) == len(wanted.shape) and all(
        d in (-1, s) for s, d in zip(array.shape, wanted.shape, strict=True)
    )
    return array if fits and array.dtype == to_numpy(wanted.dtype) else None


def made_up(wanted: TensorType, rng: np.random.Generator) -> Array:
    """Returns random data of a type: floats from 0 to 1, small integers, or words."""
    shape = tuple(VARYING if dim < 0 else dim for dim in wanted.shape)
    dtype = to_numpy(wanted.dtype)
    if dtype.kind == "O":
        words = np.empty(math.prod(shape), np.object_)
        words[:] = [f"word{number}".encode() for number in rng.integers(0, 1000, math.prod(shape))]
        return words.reshape(shape)
    if dtype.kind == "f":
        return rng.random(shape).astype(dtype)
    if dtype == BF16:
        # BF16 is the upper half of FP32.
        return (rng.random(shape, np.float32).view(np.uint32) >> 16).astype(np.uint16).view(BF16)
    most = 2 if dtype.kind == "b" else 256 if wanted.dtype == "UINT8" else 100
    return rng.integers(0, most, shape).astype(dtype)


def calls(graph: TaskGraph, task: Task, tensors: Tensors) -> list[dict[str, Array]]:
    """Returns the inputs of each call of the task for one request, without a batch dimension.

    A task with `for_each` has one call per row, any other task has one call.

    Args:
        graph: Graph of the task.
        task: Task to call. Its condition, if any, is assumed to hold.
        tensors: All tensors that the task consumes.
    """
    iterated = {name for name, ref in task.inputs.items() if graph.iterated(task, ref)}
    if task.for_each is None:
        return [{name: tensors[ref] for name, ref in task.inputs.items()}]
    return [
        {name: tensors[ref][row] if name in iterated else tensors[ref] for name, ref in task.inputs.items()}
        for row in range(len(tensors[task.for_each]))
    ]


def gather(graph: TaskGraph, task: Task, answers: Sequence[Arrays]) -> dict[TensorRef, Array]:
    """Combines the answers to a task's calls into the tensors that consumers of the task see.

    Args:
        graph: Graph of the task.
        task: Task that answered.
        answers: Answer to each call, at least one, each with a batch dimension of 1.
    """
    row_per_call = task.for_each is not None or task.when is not None
    found = {}
    for ref in (TensorRef(task.name, name) for name in task.outputs):
        arrays = [answer[ref.name] for answer in answers]
        as_rows = row_per_call and not graph.makes_rows(ref)
        found[ref] = np.concatenate(arrays if as_rows else [array[0] for array in arrays])
    for name, counted in task.counts.items():
        counts = np.array([[answer[counted].shape[1]] for answer in answers])
        found[TensorRef(task.name, name)] = counts if row_per_call else counts[0]
    return found


def batches(calls: Sequence[Arrays], size: int, *, side_by_side: bool) -> tuple[Batch, ...]:
    """Returns batches of exactly `size` items, which cycle through the calls.

    Args:
        calls: Inputs of calls, at least one. They have equal shapes unless `side_by_side` is set.
        size: Number of items in each batch.
        side_by_side: True if each item is sent as a separate, concurrent request.
    """
    distinct = math.lcm(len(calls), size) // size
    return tuple(
        _batch([calls[(number * size + item) % len(calls)] for item in range(size)], side_by_side=side_by_side)
        for number in range(min(distinct, MOST_BATCHES))
    )


def _batch(items: Sequence[Arrays], *, side_by_side: bool) -> Batch:
    if side_by_side:
        return tuple({name: array[None] for name, array in item.items()} for item in items)
    return ({name: np.stack([item[name] for item in items]) for name in items[0]},)
