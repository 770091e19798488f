"""Runner of TorchScript models. The artifact is `model.pt`.

Tensors are matched by name where the model has names: those of the parameters of its `forward`, and those of outputs in
a dictionary or a named tuple. Otherwise they are matched by position, in the task's order.
"""

from collections.abc import Mapping
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
        parameters = {argument.name for argument in module.forward.schema.arguments[1:]}
        self._by_name = parameters.issuperset(tensor.name for tensor in spec.inputs)

    def run(self, inputs: Arrays) -> Arrays:
        """Calls the module once.

        Raises:
            ValueError: The module returned fewer or other outputs than the spec has.
        """
        # torch warns about read-only memory, such as Triton's, so the inputs are copied.
        tensors = {t.name: _tensor(np.array(inputs[t.name])).to(self._device) for t in self.spec.inputs}
        with torch.inference_mode():
            result = self._module(**tensors) if self._by_name else self._module(*tensors.values())
        return {name: _array(tensor.cpu()) for name, tensor in self._named(result).items()}

    def _named(self, result: Any) -> dict[str, Any]:
        """Returns the declared outputs by name, or all outputs if none is declared."""
        fields = getattr(result, "_fields", ())
        declared = [output.name for output in self.spec.outputs] or _own_names(result)
        if isinstance(result, Mapping) or set(fields).issuperset(declared):
            named = result if isinstance(result, Mapping) else result._asdict()
            if lacking := [name for name in declared if name not in named]:
                raise ValueError(
                    f"model.pt returned no output {', '.join(lacking)}; it returned {', '.join(map(str, named))}"
                )
            return {name: named[name] for name in declared}
        results = result if isinstance(result, tuple | list) else (result,)
        if len(results) != len(declared):
            raise ValueError(f"model.pt returned {len(results)} outputs where {len(declared)} are declared")
        return dict(zip(declared, results, strict=True))


def _own_names(result: Any) -> list[str]:
    """Returns the names that the model has for its outputs, or names by which Triton's pytorch backend counts them."""
    if isinstance(result, Mapping):
        return [str(name) for name in result]
    count = len(result) if isinstance(result, tuple | list) else 1
    return list(getattr(result, "_fields", ())) or [f"OUTPUT__{number}" for number in range(count)]


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
    file = str(artifact(folder, "model.pt"))
    module: Any = torch.jit.load(file, map_location=device)
    return TorchRunner(spec, module.eval(), device)
