"""Base class of all runners."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jigsaw_triton.runtime.dtypes import Array, Arrays, to_bytes
from jigsaw_triton.runtime.messages import plain, shortened
from jigsaw_triton.runtime.outcome import Failure, check_output
from jigsaw_triton.runtime.spec import ROWS_PREFIX, RunnerSpec

Result = dict[str, Array] | Failure
"""Outputs of a request by name, or its failure."""


class Runner(ABC):
    """A loaded variant.

    Args:
        spec: Specification of the variant.
    """

    def __init__(self, spec: RunnerSpec) -> None:
        self.spec = spec

    @abstractmethod
    def run(self, inputs: Arrays) -> Arrays:
        """Runs the model once.

        Args:
            inputs: Inputs by name, each with a leading batch dimension.

        Returns:
            The outputs of the spec by name, each with a leading batch dimension.
        """

    def answer(self, requests: Sequence[Arrays]) -> list[Result]:
        """Answers the requests of a batch.

        Requests of equal shapes are joined in one run. If that run fails, each request is run separately, so that a bad
        request cannot fail others. If the spec does not allow items to be joined, each item is run separately.
        """
        if len(requests) == 1:  # The usual case: the gateway forms the batches.
            return [_mismatch(requests[0]) or self._answer_one(requests[0])]
        results: dict[int, Result] = {}
        groups: dict[object, list[int]] = {}
        for index, request in enumerate(requests):
            if failure := _mismatch(request):
                results[index] = failure
                continue
            shapes = tuple(request[tensor.name].shape[1:] for tensor in self.spec.inputs)
            groups.setdefault(shapes if self.spec.stack else index, []).append(index)
        for indices in groups.values():
            results |= zip(indices, self._answer_joined([requests[index] for index in indices]), strict=True)
        return [results[index] for index in range(len(requests))]

    def _answer_joined(self, requests: Sequence[Arrays]) -> list[Result]:
        """Answers requests that may be joined."""
        if len(requests) > 1:
            names = [tensor.name for tensor in self.spec.inputs]
            made = self._once({name: np.concatenate([request[name] for request in requests]) for name in names})
            if not isinstance(made, Failure):
                ends = np.cumsum([_items(request) for request in requests])[:-1]
                parts = {name: np.split(array, ends) for name, array in made.items()}
                return [{name: parts[name][index] for name in made} for index in range(len(requests))]
        return [self._answer_one(request) for request in requests]

    def _answer_one(self, request: Arrays) -> Result:
        """Answers one request with one run, or with one run for each item."""
        items = _items(request)
        if self.spec.stack or (items <= 1 and not self.spec.pads):
            return self._once(request)
        parts = []
        for item in range(items):
            made = self._once({name: array[item : item + 1] for name, array in request.items()})
            if isinstance(made, Failure):
                return made
            parts.append(made)
        outputs = {}
        for output in self.spec.outputs:
            arrays = [part[output.name] for part in parts]
            if output.name in self.spec.pads:
                rows = [array.shape[1] for array in arrays]
                outputs[f"{ROWS_PREFIX}{output.name}"] = np.array(rows, np.int64)[:, None]
                arrays = [_padded(array, max(rows, default=0)) for array in arrays]
            shapes = sorted({array.shape[1:] for array in arrays})
            if len(shapes) > 1:
                text = ", ".join(str(list(shape)) for shape in shapes)
                return Failure(
                    f"output {output.name} differs in shape between the items of the request: {text}", "request"
                )
            outputs[output.name] = np.concatenate(arrays)
        return outputs

    def _once(self, inputs: Arrays) -> Result:
        """Runs the model once and checks its outputs."""
        try:
            made = self.run(inputs)
        except BaseException as error:  # Any exception of a model, even a panic of a Rust library, becomes the answer.
            return Failure(f"{type(error).__name__}: {plain(shortened(str(error)))}", "model")
        try:
            return self._declared(made, _items(inputs))
        except ValueError as error:
            return Failure(plain(shortened(str(error))), "model")

    def _declared(self, made: Mapping[str, Any], items: int) -> dict[str, Array]:
        """Converts outputs to arrays and checks that they match their declarations.

        Raises:
            ValueError: An output is missing, was not declared, or has the wrong data type or shape.
        """
        if not isinstance(made, Mapping):
            raise ValueError(f"the model returned {type(made).__name__}, not outputs by name")
        declared = {output.name: output for output in self.spec.outputs}
        arrays = {}
        for name, output in made.items():
            if name not in declared:
                raise ValueError(f"output {name} was not declared; there are {', '.join(sorted(declared))}")
            try:
                arrays[name] = to_bytes(output) if declared[name].dtype == "BYTES" else np.asarray(output)
            except Exception as error:  # An object's conversion to an array can raise anything.
                raise ValueError(f"output {name}: {error}") from error
        for name, tensor in declared.items():
            check_output(tensor, arrays.get(name), items)
        return arrays


def _mismatch(request: Arrays) -> Failure | None:
    """Returns the failure of a request whose inputs differ in batch size; None if they agree."""
    if len({len(array) for array in request.values()}) == 1:
        return None
    sizes = ", ".join(f"{name} has {len(array)}" for name, array in request.items())
    return Failure(f"inputs differ in batch size: {sizes}", "request")


def _padded(array: Array, rows: int) -> Array:
    """Pads the rows of an item, [1, its rows, ...], to the given number of rows."""
    missing = rows - array.shape[1]
    if not missing:
        return array
    padding: Any = b"" if array.dtype == np.object_ else np.zeros((), array.dtype)
    return np.concatenate([array, np.full((1, missing, *array.shape[2:]), padding, array.dtype)], axis=1)


def _items(inputs: Arrays) -> int:
    return len(next(iter(inputs.values())))


def artifact(folder: Path, name: str, *, stored_as: str = "") -> Path:
    """Returns the path of a variant's artifact.

    Args:
        folder: Version folder of the model.
        name: Name of the artifact in graph.yaml.
        stored_as: Name of the file in the folder if it differs from `name`.

    Raises:
        RuntimeError: The file does not exist.
    """
    path = folder / (stored_as or name)
    if not path.is_file():
        raise RuntimeError(f"artifact {name} is missing in {folder}; add it to the variant's artifacts in graph.yaml")
    return path
