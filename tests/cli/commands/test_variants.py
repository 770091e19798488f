import json
from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.api.adding import add_models
from tests.cli.conftest import Run
from tests.fakes.onnx_networks import perceptron

onnx = pytest.importorskip("onnx", reason="the extra `variants` is not installed")
pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.usefixtures("kept_models")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onnx.save(perceptron(), tmp_path / "m.onnx")
    add_models([tmp_path / "m.onnx"], task="t", graph=tmp_path)
    return tmp_path


def test_the_variants_are_shown_with_their_agreement(run: Run, folder: Path) -> None:
    np.save(folder / "x.npy", np.eye(16, dtype=np.float32))
    result = run("variants", folder / "m.onnx", "--graph", folder, "--samples", f"X={folder / 'x.npy'}")
    assert result.exit_code == 0
    assert "top-1 agreement 1 on 16 items (your samples)" in result.stdout
    assert f"{folder / 'graph.yaml'} is changed. Next:" in result.stdout
    assert "no resize: no input is an image" in result.stderr
    assert "random data" not in result.stderr
    again = run("variants", folder / "m.onnx", "--graph", folder, "--kind", "int8", "-o", "json")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["not_made"] == [
        {"kind": "int8", "reason": "the variant 'm-int8' exists already", "present": True}
    ]


def test_random_data_is_a_warning(run: Run, folder: Path) -> None:
    result = run("variants", folder / "m.onnx", "--graph", folder, "--kind", "fp16", "-o", "json")
    assert "warning: the variants were compared on random data" in result.stderr
    (variant,) = json.loads(result.stdout)["variants"]
    assert (variant["name"], variant["metric"], variant["items"]) == ("m-fp16", "top-1", 64)


def test_the_exit_code_is_1_if_no_variant_can_be_made(run: Run, folder: Path) -> None:
    result = run("variants", folder / "m.onnx", "--graph", folder, "--kind", "batch")
    assert result.exit_code == 1
    assert "no batch: the batch dimension varies already" in result.stderr
    assert "no variant was made" in result.stdout


def test_a_file_that_exists_needs_the_option(run: Run, folder: Path) -> None:
    (folder / "m-fp16.onnx").touch()
    arguments = ("variants", folder / "m.onnx", "--graph", folder, "--kind", "fp16")
    result = run(*arguments)
    assert result.exit_code == 1
    assert "m-fp16.onnx exists; --overwrite replaces it" in result.stderr
    assert run(*arguments, "--overwrite").exit_code == 0
