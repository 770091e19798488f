"""Runs ONNX models for checks, on the processor: a check must not take the memory of a GPU that serves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from jigsaw_triton.runtime.dtypes import Arrays
from jigsaw_triton.runtime.spec import RunnerSpec


def passes(spec: RunnerSpec) -> bool:
    """Returns True if onnxruntime's Python package can pass all tensors of a model. It cannot pass BF16."""
    return all(tensor.dtype != "BF16" for tensor in spec.inputs + spec.outputs)


def load_onnx(path: Path, spec: RunnerSpec) -> Callable[[Arrays], Arrays]:
    """Loads a model with onnxruntime; returns a function that maps inputs to the outputs of the spec.

    Raises:
        ModuleNotFoundError: The package onnxruntime is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec.threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in spec.outputs]
    texts = {tensor.name for tensor in spec.inputs if tensor.dtype == "BYTES"}

    def run(inputs: Arrays) -> Arrays:
        decode = np.vectorize(bytes.decode, otypes=[np.object_])
        feed = {name: decode(array) if name in texts else array for name, array in inputs.items()}
        return dict(zip(names, session.run(names, feed), strict=True))

    return run
