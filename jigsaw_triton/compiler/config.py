"""config.pbtxt through Triton's own protobuf: parsed from a template, completed, printed the same way each time."""

from collections.abc import Iterable, Mapping

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

from jigsaw_triton.compiler.bundle import ModelFolder
from jigsaw_triton.compiler.templates import CONFIG_FILE
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import TensorType
from jigsaw_triton.runtime.spec import SPEC_PARAMETER, FrontSpec, PipelineSpec, RunnerSpec, StepSpec, to_json

VERSION = "1"
"""The one version of every model, as its folder is named."""

Tensors = Mapping[str, TensorType]


def parse(text: str, *, where: str) -> ModelConfig:
    """Reads a config.pbtxt.

    Args:
        text: Protobuf text.
        where: The template, for messages.

    Raises:
        InputError: It is not one.
    """
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        raise InputError(
            f"the base of the model's configuration is not valid ({error})",
            where=where,
            hint="write it as Triton's config.pbtxt",
        ) from error


def render(config: ModelConfig) -> bytes:
    """Protobuf text, the same for equal configurations."""
    text: str = text_format.MessageToString(config, as_utf8=True)
    return text.encode()


def of_folder(folder: ModelFolder) -> ModelConfig:
    """The configuration in a compiled model folder."""
    content = folder.files[CONFIG_FILE]
    if not isinstance(content, bytes):
        raise TypeError(f"{folder.name}: {CONFIG_FILE} is not made by the compiler")
    return parse(content.decode(), where=folder.name)


def varies(tensor: TensorType) -> bool:
    """True if any dimension differs between requests."""
    return any(dim < 0 for dim in tensor.shape)


def set_tensors(config: ModelConfig, inputs: Tensors, outputs: Tensors, *, ragged: bool = False) -> None:
    """Declares inputs and outputs in place of those of the base.

    Args:
        config: Changed.
        inputs: Types by name, without a batch dimension.
        outputs: Types by name, without a batch dimension.
        ragged: True if requests whose varying dimensions differ may be put in one batch.
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


def set_instances(config: ModelConfig, count: int, *, gpu: bool = False) -> None:
    """Says how many instances there are, and whether on the server's GPU, in place of the base's groups."""
    config.ClearField("instance_group")
    kind = ModelInstanceGroup.KIND_GPU if gpu else ModelInstanceGroup.KIND_CPU
    config.instance_group.add(count=count, kind=kind)


def set_spec(config: ModelConfig, spec: FrontSpec | RunnerSpec | StepSpec | PipelineSpec) -> None:
    """Puts the specification where the code in `runtime` reads it."""
    config.parameters[SPEC_PARAMETER].string_value = to_json(spec)


def data_type_name(data_type: int) -> str:
    """`FP32` for TYPE_FP32, as clients write it; `BYTES` for strings."""
    name: str = DataType.Name(data_type).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def shape_text(dims: Iterable[int]) -> str:
    """`[-1, 3]`."""
    return f"[{', '.join(str(dim) for dim in dims)}]"


def _data_type(tensor: TensorType, name: str, where: str) -> int:
    """Triton's number of the data type.

    Raises:
        InputError: Triton has no such type, or the tensor has no dimension, which no configuration can say.
    """
    type_name = "TYPE_STRING" if tensor.dtype == "BYTES" else f"TYPE_{tensor.dtype}"
    if type_name not in DataType.keys():  # noqa: SIM118 - an enum wrapper, not a mapping
        raise InputError(f"tensor {name}: Triton has no data type {tensor.dtype!r}", where=where)
    if not tensor.shape:
        raise InputError(
            f"tensor {name} has no dimension",
            where=where,
            hint="give it one: [1] for a single value, [-1, 1] for rows of single values",
        )
    number: int = DataType.Value(type_name)
    return number
