"""Runner of TorchScript models. The artifact is `model.pt`; inputs and outputs are positional, in the task's order."""

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
        spec: Specification of the variant.
        module: Module in evaluation mode.
        device: Device of the module.
    """

    def __init__(self, spec: RunnerSpec, module: Any, device: str) -> None:
        super().__init__(spec)
        self._module = module
        self._device = device

    def run(self, inputs: Arrays) -> Arrays:
        """Calls the module once.

        Raises:
            ValueError: The module returned a different number of outputs than the spec has.
        """
        # torch warns about read-only memory, such as Triton's, so the inputs are copied.
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
        # Only a contiguous array can be viewed as another type.
        return np.ascontiguousarray(tensor.view(torch.int16).numpy()).view(BF16)
    array: Array = tensor.numpy()
    return array


def load(folder: Path, spec: RunnerSpec, _instance: str) -> TorchRunner:
    """Loads `model.pt`, on the GPU if torch has one."""
    torch.set_num_threads(spec.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # torch.jit has no type annotations.
    module: Any = torch.jit.load(str(artifact(folder, "model.pt")), map_location=device)  # type: ignore[no-untyped-call]
    return TorchRunner(spec, module.eval(), device)
