"""What all runners have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jigsaw_triton.runtime.batches import Batch, Failure
from jigsaw_triton.runtime.dtypes import Array, Arrays, to_bytes
from jigsaw_triton.runtime.messages import plain, shortened
from jigsaw_triton.runtime.spec import DispatcherSpec, RunnerSpec


class Runner(ABC):
    """A variant, loaded.

    Args:
        spec: Of the variant.
    """

    def __init__(self, spec: RunnerSpec) -> None:
        self.spec = spec
        self._calls = DispatcherSpec("", "", "stack" if spec.stack else "items", spec.inputs, spec.outputs)

    @abstractmethod
    def run(self, inputs: Arrays) -> Arrays:
        """Runs the model once.

        Args:
            inputs: Each with a leading batch dimension.

        Returns:
            The spec's outputs, likewise.
        """

    def answer(self, requests: Sequence[Arrays]) -> list[dict[str, Array] | Failure]:
        """Answers the requests of a batch: joined, or item by item where the spec does not allow that.

        Where a joined run fails each request is tried on its own, so that a bad one harms no other.
        """
        batch = Batch(self._calls, requests)
        while (head := batch.head()) is not None:
            part = batch.take(len(head))
            try:
                batch.answered(part, self._declared(self.run(part.inputs())))
            except BaseException as error:  # whatever a model raises is the answer to its request; a panic of Rust, too
                batch.refused(part, Failure(f"{type(error).__name__}: {plain(shortened(str(error)))}", "model"))
        return batch.results()

    def _declared(self, outputs: Arrays) -> dict[str, Array]:
        """Outputs as arrays, bytes and text as BYTES.

        Raises:
            ValueError: One was not declared, or holds neither bytes nor text where it should.
        """
        dtypes = {output.name: output.dtype for output in self.spec.outputs}
        arrays = {}
        for name, made in outputs.items():
            if name not in dtypes:
                raise ValueError(f"output {name} was not declared; there are {', '.join(sorted(dtypes))}")
            try:
                arrays[name] = to_bytes(made) if dtypes[name] == "BYTES" else np.asarray(made)
            except ValueError as error:
                raise ValueError(f"output {name}: {error}") from error
        return arrays


def artifact(folder: Path, name: str, *, stored_as: str = "") -> Path:
    """A file of the variant.

    Args:
        folder: The model's version folder.
        name: As the graph's author knows it.
        stored_as: Where it goes by another name in the folder.

    Raises:
        RuntimeError: It is not there.
    """
    path = folder / (stored_as or name)
    if not path.is_file():
        raise RuntimeError(f"artifact {name} is missing in {folder}; name it under the variant's artifacts")
    return path
