import json
from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.api.files import load_graph
from tests.cli.conftest import Run
from tests.fakes.onnx_models import classifier

pytestmark = pytest.mark.usefixtures("kept_models")

CODE = """\
class Model:
    def __init__(self, folder, parameters, threads):
        pass

    def __call__(self, inputs):
        return {"MEAN": inputs["VALUES"].mean(axis=1, keepdims=True)}
"""


def test_a_model_becomes_an_application(run: Run, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(classifier())
    result = run("add", tmp_path / "m.onnx", "--task", "classify", "--graph", tmp_path / "app")
    assert result.exit_code == 0
    assert f"{tmp_path / 'app' / 'graph.yaml'} is written. Next:" in result.stdout
    assert "accuracy is 1; write the measured one of each variant" in result.stderr
    assert run("validate", tmp_path / "app").exit_code == 0
    again = run(
        "add", tmp_path / "m.onnx", "--task", "other", "--graph", tmp_path / "app", "--input", "X=classify.SCORES",
        "--accuracy", "0.5", "-o", "json",
    )  # fmt: skip
    data = json.loads(again.stdout)
    assert (data["task"], data["variants"], data["copied"]) == ("other", ["m"], [])
    assert again.stderr == ""
    assert str(load_graph(tmp_path / "app").tasks["other"].inputs["X"]) == "classify.SCORES"


@pytest.mark.parametrize("form", ["file", "type"])
def test_a_sample_is_a_file_or_random_data(run: Run, tmp_path: Path, form: str) -> None:
    np.save(tmp_path / "x.npy", np.ones(16, np.float32))
    (tmp_path / "mean.py").write_text(CODE)
    sample = f"VALUES={tmp_path / 'x.npy'}" if form == "file" else "VALUES=FP32[16]"
    result = run("add", tmp_path / "mean.py", "--task", "mean", "--graph", tmp_path, "--sample", sample)
    assert result.exit_code == 0
    assert load_graph(tmp_path).inputs["VALUES"].type.shape == (16,)


def test_tensors_are_renamed_and_parameters_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(classifier())
    result = run(
        "add", tmp_path / "m.onnx", "--task", "t", "--graph", tmp_path, "--rename", "X=IMAGE",
        "--rename", "LABEL=CLASS", "--parameter", "a=b=c",
    )  # fmt: skip
    assert result.exit_code == 0
    assert "'X' is called IMAGE, 'LABEL' is called CLASS" in result.stderr
    task = load_graph(tmp_path).tasks["t"]
    assert (list(task.inputs), list(task.outputs)) == (["IMAGE"], ["CLASS", "SCORES"])
    assert task.variants[0].parameters == {"a": "b=c"}


def test_a_variant_is_added_to_a_task_that_exists(run: Run, app: Path, tmp_path: Path) -> None:
    (tmp_path / "mean.py").write_text(CODE)
    result = run("add", tmp_path / "mean.py", "--task", "average", "--graph", app, "--accuracy", "0.99")
    assert result.exit_code == 0
    assert [v.name for v in load_graph(app).tasks["average"].variants] == ["exact", "quick", "mean"]
    assert "# To pass this task's output to another task" in (app / "graph.yaml").read_text()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--sample", "X", "--sample: 'X' is not NAME=VALUE"),
        ("--sample", "X=FP99[3]", "data type FP99 has no numpy type"),
        ("--sample", "X=FP32[-1]", "'FP32[-1]' has a dimension that is not a positive number\nhint: write the sizes"),
        ("--sample", "X=FP32[1 2]", "'FP32[1 2]' has a dimension that is not a positive number\nhint: write the sizes"),
        ("--sample", "X=FP32[99999999,9999]", "has 999899990001 values, too many for a sample\nhint: write the sizes"),
        ("--sample", "X=nothing.npy", "the sample cannot be read"),
        ("--input", "=y", "--input: '=y' is not NAME=VALUE"),
        ("--rename", "X", "--rename: 'X' is not NAME=VALUE"),
        ("--rename", "X=1", "'1' is not a valid name"),
        ("--parameter", "pipeline", "--parameter: 'pipeline' is not NAME=VALUE"),
        ("--accuracy", "nan", "'nan' is not a finite number"),
        ("--accuracy", "0", "0.0 is not in the range x>0"),
    ],
)
def test_values_of_another_form_are_refused(run: Run, tmp_path: Path, option: str, value: str, message: str) -> None:
    (tmp_path / "m.onnx").write_bytes(classifier())
    result = run("add", tmp_path / "m.onnx", "--task", "t", "--graph", tmp_path, option, value)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "graph.yaml").exists()
