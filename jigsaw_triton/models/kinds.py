"""The kinds of models that templates serve, and the files that they have."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.compiler.templates import CONFIG_FILE
from jigsaw_triton.compiler.worker_config import FOLDER
from jigsaw_triton.models.config_file import read_config
from jigsaw_triton.models.interface import Interface
from jigsaw_triton.models.onnx_file import read_onnx
from jigsaw_triton.models.python_file import read_python
from jigsaw_triton.models.torchscript_file import read_torchscript
from jigsaw_triton.models.transformers_folder import CONFIG, read_transformers
from jigsaw_triton.models.transformers_folder import TEMPLATE as TRANSFORMERS


@dataclass(frozen=True, slots=True)
class Kind:
    """Models of a template.

    Attributes:
        serves: Description of the models, for lists.
        artifact: Name of the artifact that each variant has; empty if variants have none.
        read: Function that checks the file and returns the inputs and outputs in it, or None if they are not in it.
        runs: True if a runner of ours can execute the models.
    """

    serves: str
    artifact: str = ""
    read: Callable[[Path], Interface | None] | None = None
    runs: bool = False


ONNX = "onnxruntime"
"""Template of ONNX models."""

KINDS: Mapping[str, Kind] = {
    "emulated": Kind("no model: the profiled time of each batch, and zeros"),
    FOLDER: Kind("a model with a config.pbtxt of its own", CONFIG_FILE, read_config),
    ONNX: Kind("ONNX models", "model.onnx", read_onnx, runs=True),
    "openvino": Kind("OpenVINO models, on processors", "model.xml"),
    "python": Kind("a Python class", "model.py", read_python, runs=True),
    "tensorrt": Kind("TensorRT engines", "model.plan"),
    "torch": Kind("TorchScript models", "model.pt", read_torchscript, runs=True),
    TRANSFORMERS: Kind("Hugging Face models", CONFIG, read_transformers, runs=True),
}
"""Template -> the models that it serves."""


def kind_of(template: str) -> Kind:
    """Returns the kind of models of a template. Nothing is known of the models of a template that users have added."""
    return KINDS.get(template, Kind("models of a template of your own"))
