"""Adding Python classes and TorchScript modules."""

from pathlib import Path

import numpy as np
import pytest

import jigsaw_triton as jt
from jigsaw_triton.api.adding import add_models
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.tensors import TensorType

pytestmark = pytest.mark.usefixtures("kept_models")

CODE = """\
class Model:
    def __init__(self, folder, parameters, threads):
        pass

    def __call__(self, inputs):
        return {"SUM": inputs["X"].sum(axis=1), "SAME": inputs["X"]}
"""


def test_a_python_class_is_run_on_a_sample(tmp_path: Path) -> None:
    (tmp_path / "sum.py").write_text(CODE)
    with pytest.raises(InputError, match="the inputs of such a model are not in its file; give an item of each input"):
        add_models([tmp_path / "sum.py"], task="t", graph=tmp_path)
    samples = {"X": np.ones(3, np.float32)}
    added = add_models([tmp_path / "sum.py"], task="t", graph=tmp_path, samples=samples)
    task = added.graph.tasks["t"]
    assert added.graph.inputs["X"].type == TensorType("FP32", (3,))
    assert task.outputs == {"SUM": TensorType("FP32", (1,)), "SAME": TensorType("FP32", (3,))}
    assert task.scalar_outputs == {"SUM"}
    # A further variant of the task needs no sample.
    (tmp_path / "other.py").write_text(CODE)
    more = add_models([tmp_path / "other.py"], task="t", graph=tmp_path)
    assert [v.name for v in more.graph.tasks["t"].variants] == ["sum", "other"]


def test_parameters_are_passed_to_the_run_and_written(tmp_path: Path) -> None:
    (tmp_path / "sum.py").write_text(CODE.replace("pass", "assert parameters == {'scale': '0.5', 'mode': 'yes'}"))
    samples = {"X": np.ones(3, np.float32)}
    parameters = {"scale": "0.5", "mode": "yes"}
    added = add_models([tmp_path / "sum.py"], task="t", graph=tmp_path, samples=samples, parameters=parameters)
    assert added.graph.tasks["t"].variants[0].parameters == parameters


def test_files_that_a_class_reads_come_along(tmp_path: Path, outside: Path) -> None:
    file, weights = outside / "sum.py", outside / "w.txt"
    file.write_text(CODE.replace("pass", "(folder / 'w.txt').read_text()"))
    samples = {"X": np.ones(3, np.float32)}
    with pytest.raises(InputError, match=r"FileNotFoundError: .*; correct the model; name each file .* with --file"):
        add_models([file], task="t", graph=tmp_path / "app", samples=samples)
    with pytest.raises(InputError, match=r"w\.txt: there is no such file; correct --file"):
        add_models([file], task="t", graph=tmp_path / "app", samples=samples, files=[weights])
    weights.write_text("1")
    added = add_models([file], task="t", graph=tmp_path / "app", samples=samples, files=[weights])
    (variant,) = added.graph.tasks["t"].variants
    assert variant.artifacts["w.txt"] == (tmp_path / "app" / "models" / "sum" / "w.txt").resolve()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pass", "import os; os.abort()", r"the model ends its process \(signal SIGABRT\)"),
        ("pass", "raise OSError('disk')", "the model cannot be loaded: OSError: disk"),
        (
            "return",
            "raise OSError('disk')\n        return",
            "the model fails on the sample: OSError: disk; correct --s",
        ),
        ("pass", "import no_such_module", "the Python package no_such_module is not installed"),
    ],
)
def test_a_model_that_fails_is_not_added(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "sum.py").write_text(CODE.replace(old, new))
    with pytest.raises(jt.JigsawError, match=message):
        add_models([tmp_path / "sum.py"], task="t", graph=tmp_path, samples={"X": np.ones(3, np.float32)})
    assert not (tmp_path / "graph.yaml").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_outputs_of_torchscript_are_counted_if_they_have_no_names(tmp_path: Path) -> None:
    import torch

    class Both(torch.nn.Module):  # type: ignore[misc]
        def forward(self, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return 2 * a, a.sum(1)

    torch.jit.script(Both()).save(str(tmp_path / "both.pt"))
    added = add_models([tmp_path / "both.pt"], task="t", graph=tmp_path, samples={"a": np.ones(3, np.float32)})
    task = added.graph.tasks["t"]
    assert list(task.outputs) == ["OUTPUT__0", "OUTPUT__1"]
    assert task.scalar_outputs == {"OUTPUT__1"}
    assert jt.check_models(tmp_path) == []


def test_a_name_that_cannot_be_declared_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sum.py").write_text(CODE.replace('"SUM"', '"S.M"'))
    message = "the tensor 'S.M' has a name that graph.yaml cannot have; change the model to use names of a letter"
    with pytest.raises(InputError, match=message):
        add_models([tmp_path / "sum.py"], task="t", graph=tmp_path, samples={"X": np.ones(3, np.float32)})


def test_a_further_class_must_return_the_outputs_of_the_task(tmp_path: Path) -> None:
    (tmp_path / "sum.py").write_text(CODE)
    add_models([tmp_path / "sum.py"], task="t", graph=tmp_path, samples={"X": np.ones(3, np.float32)})
    (tmp_path / "other.py").write_text(CODE.replace("SUM", "TOTAL"))
    with pytest.raises(InputError, match=r"other\.py has no output 'SUM'; use another task name"):
        add_models([tmp_path / "other.py"], task="t", graph=tmp_path)
