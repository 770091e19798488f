from pathlib import Path

import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.models.interface import Interface, ModelTensor
from jigsaw_triton.models.onnx_file import read_onnx
from tests.fakes.onnx_models import FLOAT, INT64, STRING, classifier, constant, external, model, node, sequence, tensor


def test_inputs_and_outputs_are_read(tmp_path: Path) -> None:
    content = model(
        [node("Add", ["A", "STEP"], "SUM")],
        [tensor("A", FLOAT, ["batch", 300, "width"]), tensor("STEP", INT64, [2]), tensor("TEXT", STRING, [])],
        [tensor("SUM", FLOAT, ["batch", 1]), tensor("ANY", 99, None), sequence("MAPS")],
        constants=[constant("STEP", [5, 1]), constant("WEIGHT", [7] * 1000), external("LARGE", "weights.data")],
    )
    (tmp_path / "m.onnx").write_bytes(content)
    assert read_onnx(tmp_path / "m.onnx") == Interface(
        inputs={
            "A": ModelTensor("FP32", (-1, 300, -1)),
            "STEP": ModelTensor("INT64", (2,)),
            "TEXT": ModelTensor("BYTES", ()),
        },
        outputs={
            "SUM": ModelTensor("FP32", (-1, 1)),
            "ANY": ModelTensor(None, None),
            "MAPS": ModelTensor(None, None),
        },
        optional=frozenset({"STEP"}),
        files=frozenset({"weights.data"}),
    )


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "ensembles").rglob("*.onnx")), ids=lambda p: p.name
)
def test_real_models_are_read_as_onnxruntime_reads_them(path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; the warnings about such weights would fill the screen
    session = onnxruntime.InferenceSession(str(path), options)
    found = read_onnx(path)
    # Old exporters list the weights among the inputs. ONNX Runtime does not count those.
    inputs = {name: tensor for name, tensor in found.inputs.items() if name not in found.optional}
    for tensors, own in ((session.get_inputs(), inputs), (session.get_outputs(), found.outputs)):
        shapes = {t.name: tuple(dim if isinstance(dim, int) else -1 for dim in t.shape) for t in tensors}
        assert {name: own[name].shape for name in own} == shapes
        assert {t.type for t in tensors} == {"tensor(float)"} == {f"tensor({_word(own[t.name])})" for t in tensors}


def _word(found: ModelTensor) -> str:
    return {"FP32": "float"}.get(found.dtype or "", "?")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "this is not an ONNX model"),
        (b"hello, this is no model\n", "this is not an ONNX model"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "this is a pointer of Git LFS, not a model; run git lfs pull",
        ),
        (classifier()[:-30], "this is not an ONNX model"),
        (model([node("Relu", ["X"], "Y")], [], []), "this is not an ONNX model"),
        (b"\x08\x08", "this is not an ONNX model"),
        (b"\x08" + b"\xff" * 20, "this is not an ONNX model"),
        (b"\x3a\x04\x5a\x02\x0a\x09", "this is not an ONNX model"),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_onnx(tmp_path / "m.onnx")


def test_every_cut_of_a_model_is_refused_or_read(tmp_path: Path) -> None:
    whole = classifier()
    for size in range(len(whole)):
        (tmp_path / "m.onnx").write_bytes(whole[:size])
        try:
            read_onnx(tmp_path / "m.onnx")
        except InputError as error:
            assert "this is not an ONNX model" in error.message
