import logging
from typing import Any

import numpy as np
import pytest

from jigsaw_triton.runtime.dtypes import Array
from tests.fakes.onnx_networks import convolution, exported_for_one, perceptron

onnx = pytest.importorskip("onnx", reason="the extra `variants` is not installed")
pytest.importorskip("onnxruntime")

from jigsaw_triton.models.conversion import (  # noqa: E402
    UnsuitableError,
    batched,
    halved,
    quantised,
    resized,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*will be truncated:UserWarning")

RNG = np.random.default_rng(3)


def run(model: Any, **inputs: Array) -> Array:
    """Returns the only output of a model."""
    import onnxruntime

    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    made: Array = session.run(None, inputs)[0]
    return made


def operators(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("model", [perceptron(), convolution()], ids=["MatMul", "Conv"])
def test_a_quantised_model_is_smaller_and_gives_similar_results(model: Any) -> None:
    made = quantised(model)
    assert not logging.root.manager.disable
    assert {"MatMulInteger", "ConvInteger"} & {*operators(made)}
    shape = [4, *(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:])]
    given = {model.graph.input[0].name: RNG.random(shape, np.float32)}
    before, after = run(model, **given), run(made, **given)
    assert 0 < np.abs(after - before).max() < 0.1 * np.abs(before).max()


def test_a_model_is_not_quantised_twice() -> None:
    with pytest.raises(UnsuitableError, match="the model is quantised already"):
        quantised(quantised(perceptron()))


def test_a_model_without_weights_cannot_be_quantised_or_halved() -> None:
    model = exported_for_one(reshape=[1, 6])
    with pytest.raises(UnsuitableError, match=r"has no operator that can be quantised \(MatMul"):
        quantised(model)
    with pytest.raises(UnsuitableError, match="has no FP32 weights of an operator that computes in FP16"):
        halved(model)


def test_a_halved_model_has_half_the_size_and_the_same_inputs() -> None:
    model = perceptron()
    made = halved(model)
    assert made.ByteSize() < 0.75 * model.ByteSize()
    given = RNG.random((3, 16), np.float32)
    before, after = run(model, X=given), run(made, X=given)
    assert after.dtype == np.float32
    assert 0 < np.abs(after - before).max() < 0.02
    with pytest.raises(UnsuitableError, match="the model has FP16 weights already"):
        halved(made)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("side", [16, "S"])
def test_a_resized_model_takes_the_same_images(layout: str, side: int | str) -> None:
    model = convolution(layout=layout, side=side)
    made = resized(model, 0.5)
    assert operators(made)[0] == "Resize"
    image = np.full((2, 3, 16, 16), [[[[1.0]]], [[[3.0]]]], np.float32)
    image = image if layout == "NCHW" else image.transpose(0, 2, 3, 1)
    before, after = run(model, IMAGE=image), run(made, IMAGE=image)
    # The images are of one colour, so only the pixels at the border differ.
    assert np.abs(after - before).max() < 0.5 * np.abs(before).max()
    np.testing.assert_allclose(3 * after[0], after[1], rtol=1e-4)


def test_only_models_of_images_are_resized() -> None:
    with pytest.raises(UnsuitableError, match="no input is an image"):
        resized(perceptron(), 0.5)
    old = convolution()
    old.opset_import[0].version = 10
    with pytest.raises(UnsuitableError, match="the model has opset 10; export it with 11 or later"):
        resized(old, 0.5)


@pytest.mark.parametrize("reshape", [[1, 6], [1, -1], [-1, 6]])
def test_a_model_for_one_item_takes_batches(reshape: list[int]) -> None:
    made = batched(exported_for_one(reshape=reshape))
    given = RNG.random((5, 2, 3), np.float32)
    np.testing.assert_array_equal(run(made, X=given), given.reshape(5, 6))
    with pytest.raises(UnsuitableError, match="the batch dimension varies already"):
        batched(made)


def test_inputs_without_a_common_batch_dimension_are_left_alone() -> None:
    model = perceptron(batch=1)
    model.graph.input.append(onnx.helper.make_tensor_value_info("Z", onnx.TensorProto.FLOAT, [2, 16]))
    with pytest.raises(UnsuitableError, match="the inputs have different batch dimensions"):
        batched(model)


def branch(name: str) -> Any:
    """Returns a graph Y = X * W with a weight of its own."""
    helper, weight = onnx.helper, perceptron().graph.initializer[0]
    weight.name = f"W_{name}"
    output = helper.make_tensor_value_info(f"OUT_{name}", onnx.TensorProto.FLOAT, ["N", 32])
    return helper.make_graph(
        [helper.make_node("MatMul", ["X", weight.name], [output.name])], name, [], [output], [weight]
    )


def test_weights_of_inner_graphs_count() -> None:
    helper = onnx.helper
    node = helper.make_node("If", ["YES"], ["Y"], then_branch=branch("then"), else_branch=branch("else"))
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, ["N", 32])],
        [onnx.numpy_helper.from_array(np.array(True), "YES")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made = halved(model)
    given = RNG.random((2, 16), np.float32)
    assert 0 < np.abs(run(made, X=given) - run(model, X=given)).max() < 0.02
