"""Mistakes that the files of models show without a run."""

import zipfile
from pathlib import Path

import pytest

from tests.fakes.documents import edited, line_of
from tests.fakes.onnx_models import FLOAT, INT64, classifier, constant, external, model, node, sequence, tensor
from tests.models.conftest import GRAPH, MODEL, PYTHON, Check


def labels(*inputs: bytes, outputs: tuple[bytes, ...] = (tensor("LABEL", INT64, ["N"]),)) -> bytes:
    return model([node("ArgMax", ["X"], "LABEL", axis=1, keepdims=0)], inputs, outputs)


X = tensor("X", FLOAT, ["N", 4])

# Edits of the graph; the model; text on the line that the diagnostic names; message and the line to write.
MISTAKES: dict[str, tuple[list[tuple[str, str]], bytes, str, str]] = {
    "input of another name": (
        [("X: inputs.X", "DATA: inputs.X")],
        classifier(),
        "DATA:",
        "model.onnx has no input 'DATA'; write X: inputs.X",
    ),
    "two inputs of other names": (
        [("X: inputs.X", "XS: inputs.X\n        Z: inputs.X")],
        labels(tensor("A", FLOAT, ["N", 4]), tensor("B", FLOAT, ["N", 4])),
        "XS:",
        "model.onnx has no input 'XS'; inputs of the model: A, B",
    ),
    "input that the task lacks": (
        [],
        labels(X, tensor("MASK", INT64, ["N", 2])),
        "      inputs:",
        "model.onnx needs the input 'MASK', which classify lacks; add MASK to the inputs of classify; the model expects"
        " INT64 [2]",
    ),
    "data type of an input": (
        [("X: {dtype: FP32, shape: [4]}", "X: {dtype: INT64, shape: [4]}")],
        classifier(),
        "X: {dtype",
        "model.onnx takes 'X' as FP32 [4], but classify gets INT64 [4] from inputs.X; write X: {dtype: FP32,"
        " shape: [4]}",
    ),
    "size of an input": (
        [("shape: [4]", "shape: [-1]")],
        classifier(),
        "X: {dtype",
        "model.onnx takes 'X' as FP32 [4], but classify gets FP32 [-1] from inputs.X; write X: {dtype: FP32,"
        " shape: [4]}",
    ),
    "dimensions of an input": (
        [],
        labels(tensor("X", FLOAT, ["N", 3, "H", 4])),
        "X: {dtype",
        "model.onnx takes 'X' as FP32 [3, -1, 4], but classify gets FP32 [4] from inputs.X; write X: {dtype: FP32,"
        " shape: [3, -1, 4]}",
    ),
    "input with the batch dimension alone": (
        [("shape: [4]", "shape: [1]")],
        labels(tensor("X", FLOAT, ["N"])),
        "X: inputs.X",
        "model.onnx takes 'X' as FP32 [], but classify gets FP32 [1] from inputs.X; write X: {from:"
        " inputs.X, shape: []}",
    ),
    "input with a dimension": (
        [("shape: [4]", "shape: [1]"), ("X: inputs.X", "X: {from: inputs.X, shape: []}")],
        labels(tensor("X", FLOAT, ["N", 1])),
        "X: {from",
        "model.onnx takes 'X' as FP32 [1], but classify gets FP32 [] from inputs.X; write X: inputs.X",
    ),
    "batches of one size": (
        [],
        labels(tensor("X", FLOAT, [8, 4])),
        "artifacts:",
        "model.onnx takes 'X' in batches of 8 only, but is served batches of any size; export the model with a batch"
        " dimension that varies, or replace it by what `jigsaw-triton variants model.onnx --kind batch`, run in the"
        " folder of the graph, makes of it",
    ),
    "input without a batch dimension": (
        [],
        labels(tensor("X", FLOAT, [])),
        "X: inputs.X",
        "model.onnx takes 'X' as FP32 without a batch dimension, but classify gets FP32 [4] from inputs.X; give it a"
        " batch dimension",
    ),
    "output of another name": (
        [],
        labels(X, outputs=(tensor("output_label", INT64, ["N"]),)),
        "LABEL: {dtype",
        "model.onnx has no output 'LABEL'; write output_label: {dtype: INT64, shape: []}",
    ),
    "two outputs of other names, of which one has the type": (
        [
            (
                "LABEL: {dtype: INT64, shape: []}",
                "LABEL: {dtype: INT64, shape: []}\n        P: {dtype: FP32, shape: [2]}",
            )
        ],
        labels(X, outputs=(tensor("output_label", INT64, ["N"]), sequence("output_probability"))),
        "LABEL: {dtype",
        "model.onnx has no output 'LABEL'; write output_label: {dtype: INT64, shape: []}",
    ),
    "data type of an output": (
        [("dtype: INT64, shape: []", "dtype: FP32, shape: []")],
        classifier(),
        "LABEL: {dtype",
        "model.onnx returns 'LABEL' as INT64 [], but classify declares FP32 []; write LABEL: {dtype: INT64, shape: []}",
    ),
    "output with the batch dimension alone": (
        [("dtype: INT64, shape: []", "dtype: INT64, shape: [1]")],
        classifier(),
        "LABEL: {dtype",
        "model.onnx returns 'LABEL' as INT64 [], but classify declares INT64 [1]; write LABEL: {dtype:"
        " INT64, shape: []}",
    ),
    "output that is no tensor": (
        [],
        labels(X, outputs=(sequence("LABEL"),)),
        "LABEL: {dtype",
        "model.onnx returns 'LABEL' as something other than a tensor of Triton's types, but classify declares INT64 [];"
        " export the model with tensors; skl2onnx does so with options={'zipmap': False}",
    ),
    "weights in another file": (
        [],
        model(
            [node("Add", ["X", "W"], "LABEL")],
            [X],
            [tensor("LABEL", INT64, ["N"])],
            constants=[external("W", "w.data")],
        ),
        "name: only",
        "model.onnx has weights in 'w.data', which is not an artifact of 'only'; add w.data: w.data to the artifacts",
    ),
    "weights in another folder": (
        [],
        model(
            [node("Add", ["X", "W"], "LABEL")],
            [X],
            [tensor("LABEL", INT64, ["N"])],
            constants=[external("W", "weights/w.data")],
        ),
        "name: only",
        "model.onnx: the model has weights in another folder (weights/w.data), where no artifact can be; save the "
        "model again with its weights in a file beside it",
    ),
    "not a model": (
        [],
        b"no model",
        "name: only",
        "model.onnx: this is not an ONNX model; export the model again, or correct the path",
    ),
    "no artifact": (
        [(", artifacts: {model.onnx: model.onnx}", "")],
        classifier(),
        "name: only",
        "variant 'only' has no file model.onnx, which its template needs; add artifacts: {model.onnx: PATH}",
    ),
}


@pytest.mark.parametrize(("edits", "content", "place", "message"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mismatch_has_its_line_and_the_line_to_write(
    tmp_path: Path, check: Check, edits: list[tuple[str, str]], content: bytes, place: str, message: str
) -> None:
    text = edited(GRAPH, *edits)
    (tmp_path / "model.onnx").write_bytes(content)
    assert f"{line_of(text, place)}: {message}" in check(text)


@pytest.mark.parametrize(
    ("edits", "content"),
    [
        ([], classifier()),
        ([], labels(tensor("X", FLOAT, None))),
        ([], labels(tensor("X", FLOAT, [1, "n"]))),
        # Exporters write the sizes of their example into the outputs.
        ([("shape: []", "shape: [7]")], labels(X, outputs=(tensor("LABEL", INT64, [1, 3]),))),
        ([("shape: []", "shape: [7]")], labels(X, outputs=(tensor("LABEL", INT64, None),))),
        (
            [],
            model(
                [node("ArgMax", ["X"], "LABEL")],
                [X, tensor("AXIS", INT64, [1])],
                [tensor("LABEL", INT64, ["N"])],
                constants=[constant("AXIS", [1])],
            ),
        ),
    ],
    ids=["equal", "input of any shape", "open size", "size of an output", "output of any shape", "default"],
)
def test_a_model_that_agrees_with_its_task_is_accepted(
    tmp_path: Path, check: Check, edits: list[tuple[str, str]], content: bytes
) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    assert check(edited(GRAPH, *edits)) == []


def test_a_file_that_is_missing_is_left_out(check: Check) -> None:
    assert check(GRAPH, run=True) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class Model\n", "model.py:1: this is not valid Python (expected ':')"),
        ("x = 1\n", "model.py: the file defines no class Model; define it, with __init__(self, folder"),
    ],
)
def test_code_without_a_model_is_refused_without_running_it(
    tmp_path: Path, check: Check, source: str, message: str
) -> None:
    (tmp_path / "model.py").write_text(source)
    (found,) = check(PYTHON)
    assert message in found


@pytest.mark.parametrize(
    "source", [MODEL, "from elsewhere import Other as Model\n", "from all import *\n", "Model = 1\n"]
)
def test_code_that_may_define_a_model_is_accepted(tmp_path: Path, check: Check, source: str) -> None:
    (tmp_path / "model.py").write_text(source)
    assert check(PYTHON) == []


@pytest.mark.parametrize("form", ["text", "weights", "module"])
def test_a_torchscript_file_has_code(tmp_path: Path, check: Check, form: str) -> None:
    path = tmp_path / "model.pt"
    if form == "text":
        path.write_text("weights")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("m/data.pkl", b"")
            if form == "module":
                archive.writestr("m/code/__torch__.py", b"")
    found = check(GRAPH.replace("onnxruntime", "torch").replace("model.onnx", "model.pt"))
    words = {
        "text": "this is not a TorchScript model; save",
        "weights": "it has no code, as if torch.save had written it",
    }
    assert [words[form] in problem for problem in found] == ([] if form == "module" else [True])


def test_an_input_that_another_task_makes_is_compared_where_it_is_used(tmp_path: Path, check: Check) -> None:
    text = edited(
        GRAPH,
        ("LABEL: classify.LABEL", "LABEL: second.LABEL"),
        (
            "    classify:\n",
            "    second:\n      inputs:\n        X: classify.LABEL\n      outputs:\n"
            "        LABEL: {dtype: INT64, shape: []}\n      variants:\n        - {name: other, accuracy: 1,"
            " template: onnxruntime, artifacts: {model.onnx: model.onnx}}\n    classify:\n",
        ),
    )
    (tmp_path / "model.onnx").write_bytes(classifier())
    assert check(text) == [
        f"{line_of(text, 'X: classify.LABEL')}: model.onnx takes 'X' as FP32 [4], but second gets INT64 [1] from"
        " classify.LABEL; change the model, or convert classify.LABEL in a Python step"
    ]
