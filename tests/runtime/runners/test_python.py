from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.runtime.runners import load_runner
from jigsaw_triton.runtime.spec import RunnerSpec, TensorSpec

SPEC = RunnerSpec(
    "python", (TensorSpec("X", "FP32", (1,)),), (TensorSpec("Y", "FP32", (1,)),), threads=3, parameters={"add": "5"}
)
CODE = """
from dataclasses import dataclass
@dataclass
class Sum:
    value: float
class Model:
    def __init__(self, folder, parameters, threads):
        self.weight = float((folder / "weight.txt").read_text())
        self.add = Sum(float(parameters["add"]) + threads)
    def __call__(self, inputs):
        return {"Y": inputs["X"] * self.weight + self.add.value}
"""


def test_the_users_class_is_called(tmp_path: Path) -> None:
    (tmp_path / "variant.py").write_text(CODE)
    (tmp_path / "weight.txt").write_text("2")
    runner = load_runner(tmp_path, SPEC)
    (result,) = runner.answer([{"X": np.array([[1.0], [2.0]], np.float32)}])
    assert isinstance(result, dict)
    assert result["Y"].tolist() == [[10.0], [12.0]]


def test_two_variants_do_not_share_a_module(tmp_path: Path) -> None:
    loaded = []
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "variant.py").write_text(CODE)
        (tmp_path / name / "weight.txt").write_text({"a": "1", "b": "2"}[name])
        loaded.append(load_runner(tmp_path / name, SPEC))
    assert [r.run({"X": np.ones((1, 1))})["Y"].tolist() for r in loaded] == [[[9.0]], [[10.0]]]


def test_a_file_without_the_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "variant.py").write_text("class Modell: pass")
    with pytest.raises(RuntimeError, match=r"model\.py defines no class Model"):
        load_runner(tmp_path, SPEC)
