from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.runtime.runners import load_runner
from jigsaw_triton.runtime.spec import RunnerSpec, TensorSpec

pytest.importorskip("onnxruntime")

A, B, TEXT = TensorSpec("A", "FP32", (2,)), TensorSpec("B", "FP32", (2,)), TensorSpec("TEXT", "BYTES", (1,))
SUM, SAME = TensorSpec("SUM", "FP32", (2,)), TensorSpec("SAME", "BYTES", (1,))
SPEC = RunnerSpec("onnxruntime", (A, B, TEXT), (SUM, SAME))
FLOAT, STRING = 1, 8


def field(number: int, value: int | bytes | str) -> bytes:
    """Encodes a protobuf field; only small numbers."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    data = value.encode() if isinstance(value, str) else value
    assert len(data) < 1 << 14
    return bytes([number << 3 | 2, len(data) & 0x7F | 0x80, len(data) >> 7]) + data


def node(kind: str, inputs: list[str], output: str) -> bytes:
    return b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind)


def value(name: str, element: int, width: int) -> bytes:
    shape = field(1, field(2, "batch")) + field(1, field(1, width))
    return field(1, name) + field(2, field(1, field(1, element) + field(2, shape)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Writes a model that adds two vectors and passes a string through; ONNX files are protobuf messages."""
    graph = b"".join(
        [
            field(1, node("Add", ["A", "B"], "SUM")),
            field(1, node("Identity", ["TEXT"], "SAME")),
            field(2, "graph"),
            field(11, value("A", FLOAT, 2)),
            field(11, value("B", FLOAT, 2)),
            field(11, value("TEXT", STRING, 1)),
            field(12, value("SUM", FLOAT, 2)),
            field(12, value("SAME", STRING, 1)),
        ]
    )
    (tmp_path / "model.onnx").write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 14)))
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


def test_a_model_with_other_inputs_is_refused(folder: Path) -> None:
    with pytest.raises(RuntimeError, match=r"declares the inputs A, B, but model\.onnx has A, B, TEXT"):
        load_runner(folder, RunnerSpec("onnxruntime", (A, B), (SUM,)))


def test_a_model_without_a_declared_output_is_refused(folder: Path) -> None:
    with pytest.raises(RuntimeError, match=r"declares the outputs MORE, SUM, but model\.onnx has SAME, SUM"):
        load_runner(folder, RunnerSpec("onnxruntime", (A, B, TEXT), (SUM, TensorSpec("MORE", "FP32", (1,)))))
