"""Conversions of ONNX models into others with the same inputs and outputs. Importing it needs the package onnx."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

CHANNELS = (1, 3, 4)
"""Sizes by which the dimension of an image's channels is found."""

_QUANTISED = frozenset(
    {"ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeLSTM", "MatMulInteger", "QAttention"}
)
"""Operators of quantised models."""

_LEAST_RESIZE, _LEAST_ANTIALIAS = 11, 18
"""Opsets since which Resize has its present form, and since which it averages the pixels that it drops."""


class UnsuitableError(Exception):
    """The conversion does not apply to the model; the message says why."""


def quantised(model: ModelProto) -> ModelProto:
    """Returns the model with 8-bit weights. Activations are quantised when the model runs, so no samples are needed.

    Raises:
        UnsuitableError: The model has no operator that can be quantised, or is quantised already.
    """
    if _QUANTISED & _operators(model):
        raise UnsuitableError("the model is quantised already")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # On processors, ONNX Runtime has no convolution with signed weights.
    signed = not {"Conv", "ConvTranspose"} & _operators(model)
    with tempfile.TemporaryDirectory(prefix="jigsaw-quantised-") as folder:
        made = Path(folder) / "model.onnx"
        # The quantiser logs the advice to optimise the model first, which needs further packages.
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            quantize_dynamic(model, made, weight_type=QuantType.QInt8 if signed else QuantType.QUInt8)
        finally:
            logging.disable(before)
        result = onnx.load(made)
    if not _QUANTISED & _operators(result):
        raise UnsuitableError("the model has no operator that can be quantised (MatMul, Gemm, Conv, LSTM or Gather)")
    return result


def halved(model: ModelProto) -> ModelProto:
    """Returns the model with FP16 in place of FP32. Its inputs and outputs stay as they are.

    Raises:
        UnsuitableError: The model has no weights that can be FP16, or has FP16 weights already.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    if _has_halves(model.graph):
        raise UnsuitableError("the model has FP16 weights already")
    result: ModelProto = convert_float_to_float16(model, keep_io_types=True)
    if not _has_halves(result.graph):
        raise UnsuitableError("the model has no FP32 weights of an operator that computes in FP16")
    # A Cast of an input comes after the nodes that use it, which not every reader of ONNX accepts.
    result.graph.node.sort(key=lambda node: not node.name.startswith("graph_input_cast"))
    return result


def resized(model: ModelProto, scale: float) -> ModelProto:
    """Returns the model with its images made smaller before anything else. It takes inputs of the same size as before.

    Args:
        model: Model with inputs [N, C, H, W] or [N, H, W, C].
        scale: New height and width, relative to those before; between 0 and 1.

    Raises:
        UnsuitableError: No input is an image, or the opset is too old.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    if opset < _LEAST_RESIZE:
        raise UnsuitableError(f"the model has opset {opset}; export it with {_LEAST_RESIZE} or later")
    images = {value.name: axes for value in _inputs(model) if (axes := _spatial(value))}
    if not images:
        raise UnsuitableError(f"no input is an image, [N, C, H, W] or [N, H, W, C] with C of {CHANNELS}")
    result = ModelProto()
    result.CopyFrom(model)
    names = {name: _unused(result, f"{name}_resized") for name in images}
    _rename_uses(result.graph, names)
    nodes = []
    for name, axes in images.items():
        scales = _unused(result, f"{name}_scales")
        factors = [scale if axis in axes else 1.0 for axis in range(4)]
        result.graph.initializer.append(helper.make_tensor(scales, TensorProto.FLOAT, [4], factors))
        smooth = {"antialias": 1} if opset >= _LEAST_ANTIALIAS else {}
        nodes.append(helper.make_node("Resize", [name, "", scales], [names[name]], mode="linear", **smooth))
    later = [*result.graph.node]
    del result.graph.node[:]
    result.graph.node.extend([*nodes, *later])
    del result.graph.value_info[:]
    return result


def batched(model: ModelProto) -> ModelProto:
    """Returns a model that was exported for one batch size with a batch dimension that varies.

    Raises:
        UnsuitableError: The batch dimension varies already, or the inputs have none in common.
    """
    sizes = {_sizes(value)[:1] for value in _inputs(model)}
    if any(not size or size[0] < 1 for size in sizes):
        raise UnsuitableError("the batch dimension varies already")
    if len(sizes) != 1:
        raise UnsuitableError("the inputs have different batch dimensions")
    ((batch,),) = sizes
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    for value in [*_inputs(result), *graph.output]:
        if _sizes(value)[:1] == (batch,):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.value_info[:]
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    for node in [node for node in graph.node if node.op_type == "Reshape"]:
        if (tensor := constants.get(node.input[1])) is not None:
            shape = numpy_helper.to_array(tensor).tolist()
            if shape[:1] == [batch]:
                # -1 stands for what is left, and 0 for the size before. Only one dimension can be left.
                free = [0 if -1 in shape else -1, *shape[1:]]
                name = _unused(result, f"{node.name or node.output[0]}_shape")
                graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [len(free)], free))
                node.input[1] = name
    return result


def _inputs(model: ModelProto) -> list[ValueInfoProto]:
    """Returns the inputs that have no default."""
    defaults = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in defaults]


def _sizes(value: ValueInfoProto) -> tuple[int, ...]:
    """Returns the dimensions of a tensor; 0 for one that varies."""
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _spatial(value: ValueInfoProto) -> tuple[int, ...]:
    """Returns the axes of the height and the width of an image; none if the tensor is no image."""
    sizes = _sizes(value)
    if len(sizes) != 4 or value.type.tensor_type.elem_type not in (TensorProto.FLOAT, TensorProto.UINT8):
        return ()
    return (2, 3) if sizes[1] in CHANNELS else (1, 2) if sizes[3] in CHANNELS else ()


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yields a graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _graphs(inner)


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    for graph in _graphs(model.graph):
        yield from graph.node


def _operators(model: ModelProto) -> set[str]:
    return {node.op_type for node in _nodes(model)}


def _has_halves(graph: GraphProto) -> bool:
    return any(tensor.data_type == TensorProto.FLOAT16 for inner in _graphs(graph) for tensor in inner.initializer)


def _rename_uses(graph: GraphProto, names: dict[str, str]) -> None:
    """Replaces the inputs of nodes."""
    for inner in _graphs(graph):
        for node in inner.node:
            for index, name in enumerate(node.input):
                node.input[index] = names.get(name, name)


def _unused(model: ModelProto, name: str) -> str:
    """Returns a name that no tensor of the model has."""
    taken = {output for node in _nodes(model) for output in node.output}
    taken |= {entry.name for graph in _graphs(model.graph) for entry in [*graph.initializer, *graph.input]}
    while name in taken:
        name += "_"
    return name


CONVERSIONS: dict[str, Callable[[ModelProto], ModelProto]] = {"int8": quantised, "fp16": halved, "batch": batched}
"""Conversions without a parameter, by the names of their kinds."""
