"""What all runners have in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jigsaw_triton.runtime.dtypes import Array, Arrays, to_bytes
from jigsaw_triton.runtime.messages import plain, shortened
from jigsaw_triton.runtime.outcome import Failure, check_output
from jigsaw_triton.runtime.spec import RunnerSpec


class Runner(ABC):
    """A variant, loaded.

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
            The spec's outputs, likewise.
        """

    def answer(self, requests: Sequence[Arrays]) -> list[dict[str, Array] | Failure]:
        """Answers the requests of a batch: joined, or item by item where the spec does not allow that.

        Where a joined run fails each request is tried on its own, so that a bad one harms no other.
        """
        if self.spec.stack and len(requests) > 1:
            joined = self._joined(requests)
            made = self._made(joined) if joined is not None else None
            if isinstance(made, dict):
                return list(_parts(made, [_items(request) for request in requests]))
        return [self._one(request) for request in requests]

    def _one(self, request: Arrays) -> dict[str, Array] | Failure:
        """Answers one request: at once, or item by item."""
        items = _items(request)
        if self.spec.stack or items == 1:
            return self._made(request)
        parts = []
        for item in range(items):
            made = self._made({name: array[item : item + 1] for name, array in request.items()})
            if isinstance(made, Failure):
                return made
            parts.append(made)
        outputs = {}
        for output in self.spec.outputs:
            arrays = [part[output.name] for part in parts]
            shapes = sorted({array.shape[1:] for array in arrays})
            if len(shapes) > 1:
                text = ", ".join(str(list(shape)) for shape in shapes)
                return Failure(
                    f"output {output.name} differs in shape between the items of the request: {text}", "request"
                )
            outputs[output.name] = np.concatenate(arrays)
        return outputs

    def _joined(self, requests: Sequence[Arrays]) -> Arrays | None:
        """The inputs of all requests in one; None where their shapes differ."""
        names = [tensor.name for tensor in self.spec.inputs]
        if any(len({request[name].shape[1:] for request in requests}) > 1 for name in names):
            return None
        return {name: np.concatenate([request[name] for request in requests]) for name in names}

    def _made(self, inputs: Arrays) -> dict[str, Array] | Failure:
        """The declared outputs of one run, checked."""
        try:
            if len({len(array) for array in inputs.values()}) > 1:
                sizes = ", ".join(f"{name} has {len(array)}" for name, array in inputs.items())
                return Failure(f"inputs differ in batch size: {sizes}", "request")
            made = self._declared(self.run(inputs))
            for output in self.spec.outputs:
                check_output(output, made.get(output.name), _items(inputs))
        except ValueError as error:
            if isinstance(error, _Undeclared) or str(error).startswith("output "):
                return Failure(plain(shortened(str(error))), "model")
            return _raised(error)
        except BaseException as error:  # whatever a model raises is the answer to its request; a panic of Rust, too
            return _raised(error)
        return made

    def _declared(self, outputs: Arrays) -> dict[str, Array]:
        """Outputs as arrays, bytes and text as BYTES.

        Raises:
            ValueError: One was not declared, or holds neither bytes nor text where it should.
        """
        dtypes = {output.name: output.dtype for output in self.spec.outputs}
        arrays = {}
        for name, made in outputs.items():
            if name not in dtypes:
                raise _Undeclared(f"output {name} was not declared; there are {', '.join(sorted(dtypes))}")
            try:
                arrays[name] = to_bytes(made) if dtypes[name] == "BYTES" else np.asarray(made)
            except ValueError as error:
                raise _Undeclared(f"output {name}: {error}") from error
        return arrays


class _Undeclared(ValueError):
    """What a model made is not what its task declares."""


def _raised(error: BaseException) -> Failure:
    return Failure(f"{type(error).__name__}: {plain(shortened(str(error)))}", "model")


def _items(inputs: Mapping[str, Array]) -> int:
    return len(next(iter(inputs.values())))


def _parts(outputs: Mapping[str, Array], sizes: Sequence[int]) -> list[dict[str, Array]]:
    """The outputs of each request, out of those of all."""
    ends = np.cumsum(sizes)
    return [
        {name: array[end - size : end] for name, array in outputs.items()}
        for end, size in zip(ends, sizes, strict=True)
    ]


def artifact(folder: Path, name: str, *, stored_as: str = "") -> Path:
    """A file of the variant.

    Args:
        folder: The model's version folder.
        name: Name as the graph's author knows it.
        stored_as: Name in the folder, where that is another.

    Raises:
        RuntimeError: It is not there.
    """
    path = folder / (stored_as or name)
    if not path.is_file():
        raise RuntimeError(f"artifact {name} is missing in {folder}; name it under the variant's artifacts")
    return path
