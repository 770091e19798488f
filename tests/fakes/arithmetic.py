"""A model for any task, whose outputs depend on the name of the task and on every element of the inputs.

The file serves as a variant's model.py in a tritonserver and as the code of a Python step, and tests import it.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Outputs = Mapping[str, Sequence[Any]]
"""Data type and shape of each output of one call, by name."""


def compute(task: str, outputs: Outputs, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Returns the outputs of one call: integers, texts, or FP32 values of 0 or 1.

    Outputs with a variable number of rows have 0 to 3 rows, which also depend on the inputs.
    """
    number = zlib.crc32(task.encode())
    for name in sorted(inputs):
        array = inputs[name]
        texts = array.dtype.kind == "O"
        data = b"|".join(array.ravel()) if texts else np.ascontiguousarray(array).tobytes()
        number = zlib.crc32(f"{name}{array.shape}".encode() + data, number)
    return {name: _output(zlib.crc32(name.encode(), number), *kind) for name, kind in outputs.items()}


def _output(number: int, dtype: str, shape: Sequence[int]) -> Array:
    sizes = [number // 7 % 4 if size == -1 else size for size in shape]
    values = (number + np.arange(np.prod(sizes, dtype=int))) % 1000
    if dtype == "FP32":
        return (values % 2).astype(np.float32).reshape(sizes)
    if dtype == "INT64":
        return values.astype(np.int64).reshape(sizes)
    texts = np.empty(len(values), np.object_)
    texts[:] = [f"text {value}".encode() for value in values]
    return texts.reshape(sizes)


class Model:
    """A variant, whose parameters contain the name of the task and its outputs."""

    def __init__(self, folder: object, parameters: Mapping[str, str], threads: int) -> None:
        self._task = parameters["task"]
        self._outputs = json.loads(parameters["outputs"])

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        count = len(next(iter(inputs.values())))
        calls = [
            compute(self._task, self._outputs, {name: array[index] for name, array in inputs.items()})
            for index in range(count)
        ]
        return {name: np.stack([call[name] for call in calls]) for name in self._outputs}
