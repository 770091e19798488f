"""config.pbtxt files through Triton's own protobuf: parsed from a template, completed, and rendered reproducibly."""

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

from google.protobuf import text_format

from jigsaw_triton.compiler.bundle import ModelFolder
from jigsaw_triton.compiler.model_config import DataType, ModelConfig, ModelInstanceGroup
from jigsaw_triton.compiler.templates import CONFIG_FILE
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.tensors import TensorType
from jigsaw_triton.runtime.spec import SPEC_PARAMETER, FrontSpec, PipelineSpec, RunnerSpec, StepSpec, to_json

VERSION = "1"
"""Name of the version folder. Every model has one version."""

Tensors = Mapping[str, TensorType]


def parse(text: str, *, where: str) -> ModelConfig:
    """Parses a config.pbtxt.

    Args:
        text: Protobuf text.
        where: Name of the template, for error messages.

    Raises:
        InputError: The text is not a valid model configuration.
    """
    config = ModelConfig()
    try:
        config.CopyFrom(_parsed(text))
        return config
    except text_format.ParseError as error:
        raise InputError(
            f"the base of the model's configuration is not valid ({error})",
            where=where,
            hint="use the format of Triton's config.pbtxt",
        ) from error


@lru_cache
def _parsed(text: str) -> ModelConfig:
    """Parses a config.pbtxt; cached, as many models begin with the same template. Nobody may change the result."""
    return text_format.Parse(text, ModelConfig())


PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "tensorrt_plan": "tensorrt",
}
"""Platform in an older config.pbtxt -> backend, as Triton completes it."""


def backend_of(config: ModelConfig) -> str:
    """Returns the backend that serves a model; empty if the configuration does not say it."""
    return str(config.backend or PLATFORMS.get(config.platform, ""))


def on_processors(config: ModelConfig) -> bool:
    """Returns True if a configuration says that all instances run on processors."""
    groups = config.instance_group
    return bool(groups) and all(group.kind == ModelInstanceGroup.KIND_CPU for group in groups)


def render(config: ModelConfig) -> bytes:
    """Renders a configuration as protobuf text. Equal configurations give equal text."""
    text: str = text_format.MessageToString(config, as_utf8=True)
    return text.encode()


def of_folder(folder: ModelFolder) -> ModelConfig:
    """Returns the configuration of a compiled model folder."""
    content = folder.files[CONFIG_FILE]
    if not isinstance(content, bytes):
        raise TypeError(f"{folder.name}: the compiler has not made {CONFIG_FILE}")
    return parse(content.decode(), where=folder.name)


def varies(tensor: TensorType) -> bool:
    """Returns True if a dimension of the tensor may differ between requests."""
    return any(dim < 0 for dim in tensor.shape)


def set_tensors(config: ModelConfig, inputs: Tensors, outputs: Tensors, *, ragged: bool = False) -> None:
    """Replaces the inputs and outputs of a configuration.

    Args:
        config: Configuration to change.
        inputs: Types of the inputs, by name, without a batch dimension.
        outputs: Types of the outputs, by name, without a batch dimension.
        ragged: True if requests that differ in varying dimensions may share a batch.
    """
    config.ClearField("input")
    config.ClearField("output")
    for name, tensor in inputs.items():
        config.input.add(
            name=name,
            data_type=_data_type(tensor, name, config.name),
            dims=tensor.shape,
            allow_ragged_batch=ragged and varies(tensor),
        )
    for name, tensor in outputs.items():
        config.output.add(name=name, data_type=_data_type(tensor, name, config.name), dims=tensor.shape)


def set_scalars(config: ModelConfig, inputs: Collection[str], outputs: Collection[str]) -> None:
    """Makes Triton remove the dimension of inputs, and add it to outputs, that the model has without one.

    Args:
        config: Configuration whose tensors are set.
        inputs: Names of inputs of shape [1] that the model takes without any dimension but the batch.
        outputs: Names of outputs of shape [1] that the model returns so.
    """
    for tensors, names in ((config.input, inputs), (config.output, outputs)):
        for tensor in tensors:
            if tensor.name in names:
                tensor.reshape.SetInParent()


def set_instances(config: ModelConfig, count: int, *, gpu: bool = False) -> None:
    """Replaces the instance groups of a configuration with one group on the CPU or the server's GPU."""
    config.ClearField("instance_group")
    kind = ModelInstanceGroup.KIND_GPU if gpu else ModelInstanceGroup.KIND_CPU
    config.instance_group.add(count=count, kind=kind)


def set_spec(config: ModelConfig, spec: FrontSpec | RunnerSpec | StepSpec | PipelineSpec) -> None:
    """Stores a specification in the parameter from which the code in `runtime` reads it."""
    config.parameters[SPEC_PARAMETER].string_value = to_json(spec)


def data_type_name(data_type: int) -> str:
    """Returns a data type's name as clients write it: `FP32` for TYPE_FP32, `BYTES` for TYPE_STRING."""
    name: str = DataType.Name(data_type).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def shape_text(dims: Iterable[int]) -> str:
    """Formats dimensions like `[-1, 3]`."""
    return f"[{', '.join(str(dim) for dim in dims)}]"


def _data_type(tensor: TensorType, name: str, where: str) -> int:
    """Returns Triton's number of a tensor's data type.

    Raises:
        InputError: Triton has no such type, or the tensor has no dimension, which a configuration cannot express.
    """
    type_name = "TYPE_STRING" if tensor.dtype == "BYTES" else f"TYPE_{tensor.dtype}"
    if type_name not in DataType.keys():  # noqa: SIM118 - an enum wrapper, not a mapping
        hint = "use a data type of Triton, such as FP32"
        raise InputError(f"tensor {name}: Triton has no data type {tensor.dtype!r}", where=where, hint=hint)
    if not tensor.shape:
        raise InputError(
            f"tensor {name} has no dimension",
            where=where,
            hint="give it one: [1] for a single value, [-1, 1] for rows of single values",
        )
    number: int = DataType.Value(type_name)
    return number
