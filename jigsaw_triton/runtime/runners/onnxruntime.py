"""Runner of ONNX models. The artifact is `model.onnx`; inputs and outputs have the same names in task and model."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from jigsaw_triton.runtime.dtypes import Array, Arrays
from jigsaw_triton.runtime.runners.base import Runner, artifact
from jigsaw_triton.runtime.spec import RunnerSpec, TensorSpec

_PREFERRED = ("CUDAExecutionProvider", "CPUExecutionProvider")


class OnnxRunner(Runner):
    """A model that onnxruntime runs.

    Args:
        spec: Specification of the variant.
        session: Session that has loaded the model.

    Raises:
        RuntimeError: The model lacks an input or output of the spec, needs another input, or has a tensor of a type
            that onnxruntime cannot exchange with numpy. An input with a default need not be in the spec.
    """

    def __init__(self, spec: RunnerSpec, session: Any) -> None:
        super().__init__(spec)
        if unsupported := [tensor.name for tensor in (*spec.inputs, *spec.outputs) if tensor.dtype == "BF16"]:
            raise RuntimeError(
                f"{', '.join(unsupported)}: onnxruntime cannot exchange BF16 tensors with numpy; cast them to FP32 in"
                " the model, or use a tritonserver with the onnxruntime backend"
            )
        self._session = session
        self._outputs = [output.name for output in spec.outputs]
        needed = {i.name for i in session.get_inputs()}
        optional = {i.name for i in session.get_overridable_initializers()}
        made = {o.name for o in session.get_outputs()}
        _check("inputs", {i.name for i in spec.inputs}, needed, optional)
        _check("outputs", set(self._outputs), set(), made)

    def run(self, inputs: Arrays) -> Arrays:
        """Runs the session once."""
        feed = {tensor.name: _strings(tensor, inputs[tensor.name]) for tensor in self.spec.inputs}
        return dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))


def load(folder: Path, spec: RunnerSpec, _instance: str) -> OnnxRunner:
    """Loads `model.onnx`, on the GPU if onnxruntime supports it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec.threads
    options.inter_op_num_threads = 1
    # Threads that spin between runs would take CPU time from the other models of the host.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    available = onnxruntime.get_available_providers()
    providers = [provider for provider in _PREFERRED if provider in available]
    path = artifact(folder, "model.onnx")
    return OnnxRunner(spec, onnxruntime.InferenceSession(str(path), options, providers=providers))


def _check(what: str, declared: set[str], needed: set[str], optional: set[str]) -> None:
    if needed - declared or declared - needed - optional:
        raise RuntimeError(
            f"the graph declares the {what} {', '.join(sorted(declared))}, but model.onnx has"
            f" {', '.join(sorted(needed | optional))}; declare the same names"
        )


def _strings(spec: TensorSpec, array: Array) -> Array:
    if spec.dtype != "BYTES":
        return array
    texts = np.empty(array.size, np.object_)
    texts[:] = [element.decode() if isinstance(element, bytes) else str(element) for element in array.ravel()]
    return texts.reshape(array.shape)
