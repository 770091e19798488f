from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.models.interface import Interface, ModelTensor
from jigsaw_triton.models.onnx_file import read_onnx
from jigsaw_triton.models.onnx_names import new_names, write_renamed
from tests.fakes.onnx_models import INT64, classifier, constant, model, node, tensor

FP32 = ModelTensor("FP32", (-1, 4))


def interface(inputs: list[str], outputs: list[str], optional: frozenset[str] = frozenset()) -> Interface:
    return Interface(dict.fromkeys(inputs, FP32), dict.fromkeys(outputs, FP32), optional)


def test_names_that_a_graph_may_have_stay() -> None:
    assert new_names(interface(["X", "pixel-values"], ["last_hidden_state"]), {}, "m.onnx") == {}


def test_names_that_exporters_make_get_similar_ones() -> None:
    found = new_names(interface(["input.1", "x:0"], ["495", "/head/Gemm_output_0", "x_0"]), {}, "m.onnx")
    assert found == {
        "input.1": "input_1",
        "x:0": "x_0_2",
        "495": "output_495",
        "/head/Gemm_output_0": "head_Gemm_output_0",
    }


def test_an_input_with_a_default_keeps_its_name() -> None:
    assert new_names(interface(["step.1"], ["Y"], frozenset({"step.1"})), {}, "m.onnx") == {}


def test_a_name_may_be_chosen() -> None:
    assert new_names(interface(["images"], ["495"]), {"images": "X", "495": "Y"}, "m") == {"images": "X", "495": "Y"}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"Z": "A"}, "m: the model has no 'Z'; it has X, Y"),
        ({"X": "a b"}, "m: 'a b' is not a valid name; use a letter"),
        ({"X": "JIGSAW_X"}, "'JIGSAW_X' is not a valid name"),
        ({"X": "Y"}, "m: two tensors would be called 'Y'; choose another with --rename"),
    ],
)
def test_a_name_that_cannot_be_given_is_refused(wanted: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        new_names(interface(["X"], ["Y"]), wanted, "m")


def test_a_copy_has_the_other_names_and_gives_the_same_results(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    old = model(
        [node("Add", ["input.1", "STEP"], "495"), node("ArgMax", ["495"], "LABEL", axis=1, keepdims=0)],
        [tensor("input.1", INT64, ["N", 4]), tensor("STEP", INT64, [4])],
        [tensor("495", INT64, ["N", 4]), tensor("LABEL", INT64, ["N"])],
        constants=[constant("STEP", [4, 3, 2, 1])],
    )
    (tmp_path / "old.onnx").write_bytes(old)
    write_renamed(tmp_path / "old.onnx", tmp_path / "new.onnx", {"input.1": "X", "495": "SUM"})
    before, after = read_onnx(tmp_path / "old.onnx"), read_onnx(tmp_path / "new.onnx")
    assert (list(after.inputs), list(after.outputs)) == (["X", "STEP"], ["SUM", "LABEL"])
    assert (after.inputs["X"], after.outputs["SUM"]) == (before.inputs["input.1"], before.outputs["495"])
    assert after.optional == {"STEP"}
    session = onnxruntime.InferenceSession(str(tmp_path / "new.onnx"), providers=["CPUExecutionProvider"])
    total, label = session.run(["SUM", "LABEL"], {"X": np.array([[1, 2, 3, 9]])})
    assert (total.tolist(), label.tolist()) == ([[5, 5, 5, 10]], [3])


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ({"X": "inner"}, "inner"),
        ({"X": "STEP"}, "STEP"),
        ({"X": "W", "W": "X"}, "W"),
        ({"X": "Y", "Y": "Z"}, "Y"),
        ({"Y": "X", "X": "Z"}, "X"),
    ],
)
def test_a_name_of_another_tensor_is_refused(tmp_path: Path, names: dict[str, str], taken: str) -> None:
    content = model(
        [node("Add", ["X", "W"], "inner"), node("Add", ["inner", "STEP"], "Y")],
        [tensor("X", INT64, ["N", 4]), tensor("W", INT64, ["N", 4])],
        [tensor("Y", INT64, ["N", 4])],
        constants=[constant("STEP", [4, 3, 2, 1])],
    )
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InputError, match=f"another tensor of the model is called '{taken}'"):
        write_renamed(tmp_path / "m.onnx", tmp_path / "new.onnx", names)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(classifier()[:50])
    with pytest.raises(InputError, match="this is not an ONNX model"):
        write_renamed(tmp_path / "m.onnx", tmp_path / "new.onnx", {"X": "Z"})
