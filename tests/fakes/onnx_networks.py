"""ONNX models with weights. They need the package onnx."""

from typing import Any

import numpy as np


def perceptron(*, batch: int | str = "N", seed: int = 0) -> Any:
    """Returns a model X FP32 [batch, 16] -> SCORES FP32 [batch, 5] of two matrix products."""
    from onnx import TensorProto, helper

    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("MatMul", ["X", "W1"], ["H"]),
        helper.make_node("Relu", ["H"], ["R"]),
        helper.make_node("MatMul", ["R", "W2"], ["SCORES"]),
    ]
    weights = {"W1": rng.normal(size=(16, 32)), "W2": rng.normal(size=(32, 5))}
    return _model(nodes, {"X": [batch, 16]}, {"SCORES": [batch, 5]}, weights, TensorProto.FLOAT)


def convolution(*, side: int | str = 16, batch: int | str = "N", layout: str = "NCHW", flat: bool = False) -> Any:
    """Returns a model IMAGE FP32 [batch, 3, side, side] -> SCORES FP32 [batch, 4].

    Args:
        side: Height and width, or the name of a dimension that varies.
        batch: Batch dimension.
        layout: `NCHW` or `NHWC`.
        flat: True if the scores are a product of all pixels, so that the size of the images is fixed; False if they
            are averages over the image.
    """
    from onnx import TensorProto, helper

    rng = np.random.default_rng(0)
    shape = [batch, 3, side, side] if layout == "NCHW" else [batch, side, side, 3]
    nodes = []
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", ["IMAGE"], ["PIXELS"], perm=[0, 3, 1, 2]))
    first = "IMAGE" if layout == "NCHW" else "PIXELS"
    nodes.append(helper.make_node("Conv", [first, "K"], ["C"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]))
    weights = {"K": rng.normal(size=(4, 3, 3, 3))}
    if flat:
        assert isinstance(side, int)
        nodes += [helper.make_node("Flatten", ["C"], ["F"]), helper.make_node("MatMul", ["F", "W"], ["SCORES"])]
        weights["W"] = rng.normal(size=(4 * side * side, 4))
    else:
        nodes += [helper.make_node("GlobalAveragePool", ["C"], ["G"]), helper.make_node("Flatten", ["G"], ["SCORES"])]
    return _model(nodes, {"IMAGE": shape}, {"SCORES": [batch, 4]}, weights, TensorProto.FLOAT)


def exported_for_one(*, reshape: list[int]) -> Any:
    """Returns a model X FP32 [1, 2, 3] -> Y FP32 [1, 6] whose Reshape has the batch size of its example."""
    from onnx import TensorProto, helper, numpy_helper

    shape = numpy_helper.from_array(np.array(reshape, np.int64))
    nodes = [
        helper.make_node("Constant", [], ["SHAPE"], value=shape),
        helper.make_node("Reshape", ["X", "SHAPE"], ["Y"]),
    ]
    return _model(nodes, {"X": [1, 2, 3]}, {"Y": [1, 6]}, {}, TensorProto.FLOAT)


def _model(
    nodes: list[Any],
    inputs: dict[str, list[int | str]],
    outputs: dict[str, list[int | str]],
    weights: dict[str, Any],
    element: int,
) -> Any:
    from onnx import helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, element, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, element, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
