"""Inputs on which a variant is compared with its original."""

from collections.abc import Mapping

import numpy as np

from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.profiling.tensors import made_up, sample_inputs
from jigsaw_triton.graph.model import Task, TaskGraph
from jigsaw_triton.graph.tensors import TensorType
from jigsaw_triton.runtime.dtypes import Arrays, to_numpy

_RANDOM_ITEMS = 64
"""Items of random data to compare on: the share of a top-1 agreement is then known to a few percent."""


def comparison_inputs(graph: TaskGraph, task: Task, samples: Arrays | None) -> tuple[Arrays, str]:
    """Returns the inputs to compare on, with a leading dimension that counts the items, and a description of them.

    Args:
        graph: Graph with the task.
        task: Task of the variant.
        samples: Inputs of the task by name that the user gives, with that dimension; None for the graph's samples, or
            random data if it has none.

    Raises:
        InputError: The samples do not fit the task.
    """
    types = {name: graph.input_type(task, name) for name in task.inputs}
    if samples is not None:
        return _given(task, types, samples), "your samples"
    found = sample_inputs(graph) if all(path.is_file() for path in graph.samples.values()) else {}
    if all(ref in found for ref in task.inputs.values()):
        rows = {n: found[ref] if graph.iterated(task, ref) else found[ref][None] for n, ref in task.inputs.items()}
        count = max(len(array) for array in rows.values())
        if all(len(array) for array in rows.values()):
            whole = {n: array if len(array) == count else np.repeat(array, count, 0) for n, array in rows.items()}
            return _flat(task, whole), "the graph's samples"
    rng = np.random.default_rng(1)
    made = {n: made_up(TensorType(kind.dtype, (_RANDOM_ITEMS, *kind.shape)), rng) for n, kind in types.items()}
    return _flat(task, made), "random data"


def _given(task: Task, types: Mapping[str, TensorType], samples: Arrays) -> Arrays:
    """Checks samples that the user gives.

    Raises:
        InputError: The samples do not fit the task.
    """
    for name in samples.keys() ^ types.keys():
        lacks = "has no samples" if name in types else f"is not an input of {task.name}"
        raise InputError(f"'{name}' {lacks}", where="samples", hint=f"inputs: {', '.join(types)}")
    for name, array in samples.items():
        kind, shape = types[name], () if name in task.scalar_inputs else types[name].shape
        fits = array.ndim == 1 + len(shape) and all(b in (-1, a) for a, b in zip(array.shape[1:], shape, strict=True))
        if array.dtype != to_numpy(kind.dtype) or not fits or not len(array):
            raise InputError(
                f"the samples of {name} are {array.dtype} {list(array.shape)}, but {task.name} takes {kind.dtype}"
                f" {list(shape)}",
                where="samples",
                hint="save an array whose first dimension counts the items, with numpy.save",
            )
    if len({len(array) for array in samples.values()}) > 1:
        counts = ", ".join(f"{name} has {len(array)}" for name, array in samples.items())
        hint = "save arrays whose first dimensions are equal"
        raise InputError(f"the samples differ in their number of items: {counts}", where="samples", hint=hint)
    return samples


def _flat(task: Task, inputs: Arrays) -> Arrays:
    """Returns inputs in the form in which the model has them: those with the batch dimension alone lose the other."""
    return {name: array.reshape(-1) if name in task.scalar_inputs else array for name, array in inputs.items()}
