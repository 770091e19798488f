from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.runtime.runners import load_runner
from jigsaw_triton.runtime.spec import RunnerSpec, TensorSpec
from tests.fakes.onnx_models import FLOAT, INT64, STRING, classifier, constant, model, node, tensor

pytest.importorskip("onnxruntime")

A, B, TEXT = TensorSpec("A", "FP32", (2,)), TensorSpec("B", "FP32", (2,)), TensorSpec("TEXT", "BYTES", (1,))
SUM, SAME = TensorSpec("SUM", "FP32", (2,)), TensorSpec("SAME", "BYTES", (1,))
SPEC = RunnerSpec("onnxruntime", (A, B, TEXT), (SUM, SAME))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Writes a model that adds two vectors and passes a string through."""
    content = model(
        [node("Add", ["A", "B"], "SUM"), node("Identity", ["TEXT"], "SAME")],
        [tensor("A", FLOAT, ["batch", 2]), tensor("B", FLOAT, ["batch", 2]), tensor("TEXT", STRING, ["batch", 1])],
        [tensor("SUM", FLOAT, ["batch", 2]), tensor("SAME", STRING, ["batch", 1])],
    )
    (tmp_path / "model.onnx").write_bytes(content)
    return tmp_path


def test_tensors_are_matched_by_name(folder: Path) -> None:
    runner = load_runner(folder, SPEC)
    inputs = {
        "TEXT": np.array([["é".encode()], [b"b"]], np.object_),
        "B": np.array([[1, 2], [3, 4]], np.float32),
        "A": np.ones((2, 2), np.float32),
    }
    (result,) = runner.answer([inputs])
    assert isinstance(result, dict)
    assert result["SUM"].tolist() == [[2, 3], [4, 5]]
    assert result["SAME"].tolist() == [["é".encode()], [b"b"]]


def test_outputs_are_declared_in_any_order(folder: Path) -> None:
    runner = load_runner(folder, RunnerSpec("onnxruntime", (TEXT, B, A), (SAME, SUM)))
    ones = np.ones((1, 2), np.float32)
    (result,) = runner.answer([{"A": ones, "B": 2 * ones, "TEXT": np.array([[b"t"]], np.object_)}])
    assert isinstance(result, dict)
    assert (result["SAME"].tolist(), result["SUM"].tolist()) == ([[b"t"]], [[3, 3]])


def test_a_label_has_the_batch_dimension_alone(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(classifier())
    label = TensorSpec("LABEL", "INT64", ())
    runner = load_runner(tmp_path, RunnerSpec("onnxruntime", (TensorSpec("X", "FP32", (4,)),), (label,)))
    one, two = np.array([[0, 1, 0, 0]], np.float32), np.array([[0, 0, 0, 1], [1, 0, 0, 0]], np.float32)
    first, second = runner.answer([{"X": one}, {"X": two}])
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert (first["LABEL"].tolist(), second["LABEL"].tolist()) == ([1], [3, 0])


@pytest.mark.parametrize("given", [False, True])
def test_an_input_with_a_default_need_not_be_declared(tmp_path: Path, given: bool) -> None:
    content = model(
        [node("Add", ["X", "STEP"], "Y")],
        [tensor("X", INT64, ["batch", 1]), tensor("STEP", INT64, [1])],
        [tensor("Y", INT64, ["batch", 1])],
        constants=[constant("STEP", [5])],
    )
    (tmp_path / "model.onnx").write_bytes(content)
    declared = (TensorSpec("X", "INT64", (1,)), *([TensorSpec("STEP", "INT64", ())] if given else []))
    runner = load_runner(tmp_path, RunnerSpec("onnxruntime", declared, (TensorSpec("Y", "INT64", (1,)),)))
    (result,) = runner.answer([{"X": np.array([[3]])} | ({"STEP": np.array([7])} if given else {})])
    assert isinstance(result, dict)
    assert result["Y"].tolist() == [[10 if given else 8]]


def test_a_model_with_other_inputs_is_refused(folder: Path) -> None:
    with pytest.raises(RuntimeError, match=r"declares the inputs A, B, but model\.onnx has A, B, TEXT"):
        load_runner(folder, RunnerSpec("onnxruntime", (A, B), (SUM,)))


def test_a_model_without_a_declared_output_is_refused(folder: Path) -> None:
    with pytest.raises(RuntimeError, match=r"declares the outputs MORE, SUM, but model\.onnx has SAME, SUM"):
        load_runner(folder, RunnerSpec("onnxruntime", (A, B, TEXT), (SUM, TensorSpec("MORE", "FP32", (1,)))))
