"""What a task is called with for one request of its graph, and the batches made of that. Pure, but for samples read."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import GRAPH_INPUTS, Task, TaskGraph, TensorRef, TensorType
from jigsaw_triton.runtime.dtypes import BF16, Array, Arrays, to_numpy

Tensors = Mapping[TensorRef, Array]
"""The tensors of one request as `TaskGraph.type_of` says: without a batch dimension, rows included."""

Batch = tuple[Arrays, ...]
"""The requests that make one batch: one of all items, or one an item."""

VARYING = 32
"""What a dimension that varies is taken as where data is made up."""

MOST_BATCHES = 64
"""That are prepared; then they come again."""


def sample_inputs(graph: TaskGraph) -> dict[TensorRef, Array]:
    """The graph's inputs from its samples; those without one are left out.

    Raises:
        InputError: A sample is no tensor, or not of its input's type.
    """
    return {TensorRef(GRAPH_INPUTS, name): _sample(graph, name) for name in graph.inputs if name in graph.samples}


def _sample(graph: TaskGraph, name: str) -> Array:
    path, wanted = graph.samples[name], graph.inputs[name].type
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"the sample of {name} cannot be read ({error})", where=str(path)) from error
    if wanted.dtype == "BYTES" and array.dtype.kind in "SU":
        array = array.astype(np.bytes_).astype(np.object_)
    if array.dtype != to_numpy(wanted.dtype) or not _fits(array.shape, wanted.shape):
        raise InputError(
            f"the sample of {name} is {array.dtype} {list(array.shape)}, the input {wanted.dtype} {list(wanted.shape)}",
            where=str(path),
            hint="save one request's tensor, without a batch dimension, by numpy.save",
        )
    return array


def _fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    return len(shape) == len(declared) and all(d in (-1, s) for s, d in zip(shape, declared, strict=True))


def made_up(wanted: TensorType, rng: np.random.Generator) -> Array:
    """Random data of a type; floats from 0 to 1, small whole numbers, words."""
    shape = tuple(VARYING if dim < 0 else dim for dim in wanted.shape)
    dtype = to_numpy(wanted.dtype)
    if dtype.kind == "O":
        words = np.empty(math.prod(shape), np.object_)
        words[:] = [f"word{number}".encode() for number in rng.integers(0, 1000, math.prod(shape))]
        return words.reshape(shape)
    if dtype.kind == "f":
        return rng.random(shape).astype(dtype)
    if dtype == BF16:
        # The upper half of an FP32.
        return (rng.random(shape, np.float32).view(np.uint32) >> 16).astype(np.uint16).view(BF16)
    most = 2 if dtype.kind == "b" else 256 if wanted.dtype == "UINT8" else 100
    return rng.integers(0, most, shape).astype(dtype)


def calls(graph: TaskGraph, task: Task, tensors: Tensors) -> list[dict[str, Array]]:
    """What the task's model is called with for one request, a call a row where it iterates; no batch dimension.

    Args:
        graph: Of the task.
        task: Whose condition, if it has one, is taken to hold.
        tensors: All that it consumes.
    """
    iterated = {name for name, ref in task.inputs.items() if graph.iterated(task, ref)}
    if task.for_each is None:
        return [{name: tensors[ref] for name, ref in task.inputs.items()}]
    return [
        {name: tensors[ref][row] if name in iterated else tensors[ref] for name, ref in task.inputs.items()}
        for row in range(len(tensors[task.for_each]))
    ]


def gathered(graph: TaskGraph, task: Task, answers: Sequence[Arrays]) -> dict[TensorRef, Array]:
    """The task's tensors from the answers to its `calls`, as consumers see them.

    Args:
        graph: Of the task.
        task: That answered.
        answers: One a call, at least one, each with a batch dimension of 1.
    """
    a_row_a_call = task.for_each is not None or task.when is not None
    found = {}
    for ref in (TensorRef(task.name, name) for name in task.outputs):
        arrays = [answer[ref.name] for answer in answers]
        as_rows = a_row_a_call and not graph.makes_rows(ref)
        found[ref] = np.concatenate(arrays if as_rows else [array[0] for array in arrays])
    for name, of in task.counts.items():
        counts = np.array([[answer[of].shape[1]] for answer in answers])
        found[TensorRef(task.name, name)] = counts if a_row_a_call else counts[0]
    return found


def batches(calls: Sequence[Arrays], size: int, *, side_by_side: bool) -> tuple[Batch, ...]:
    """Batches of exactly `size` items that go through the calls in turn, again and again.

    Args:
        calls: At least one, of equal shapes unless `side_by_side`.
        size: Of each batch.
        side_by_side: Whether each item is a request of its own.
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
