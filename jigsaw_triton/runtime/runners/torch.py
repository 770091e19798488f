"""TorchScript models: artifact `model.pt`; inputs and outputs by position, in the order of the task's."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from jigsaw_triton.runtime.dtypes import BF16, Array, Arrays
from jigsaw_triton.runtime.runners.base import Runner, artifact
from jigsaw_triton.runtime.spec import RunnerSpec


class TorchRunner(Runner):
    """A scripted or traced module.

    Args:
        spec: Of the variant.
        module: In evaluation mode.
        device: Where it is.
    """

    def __init__(self, spec: RunnerSpec, module: Any, device: str) -> None:
        super().__init__(spec)
        self._module = module
        self._device = device

    def run(self, inputs: Arrays) -> Arrays:
        """Calls the module once.

        Raises:
            ValueError: It returned another number of outputs than the spec has.
        """
        # Triton's memory is not writable, which torch warns of; a copy is.
        tensors = [_tensor(np.array(inputs[t.name])).to(self._device) for t in self.spec.inputs]
        with torch.inference_mode():
            result = self._module(*tensors)
        results = result if isinstance(result, tuple | list) else (result,)
        if len(results) != len(self.spec.outputs):
            raise ValueError(f"model.pt returned {len(results)} outputs where {len(self.spec.outputs)} are declared")
        return {output.name: _array(tensor.cpu()) for output, tensor in zip(self.spec.outputs, results, strict=True)}


def _tensor(array: Array) -> torch.Tensor:
    if array.dtype == BF16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _array(tensor: torch.Tensor) -> Array:
    if tensor.dtype == torch.bfloat16:
        # An array's own memory has to be contiguous to be viewed as another type.
        return np.ascontiguousarray(tensor.view(torch.int16).numpy()).view(BF16)
    array: Array = tensor.numpy()
    return array


def load(folder: Path, spec: RunnerSpec) -> TorchRunner:
    """Loads `model.pt`, on the GPU where torch has one."""
    torch.set_num_threads(spec.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # torch.jit has no annotations.
    module: Any = torch.jit.load(str(artifact(folder, "model.pt")), map_location=device)  # type: ignore[no-untyped-call]
    return TorchRunner(spec, module.eval(), device)
