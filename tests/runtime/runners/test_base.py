from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jigsaw_triton.runtime import runners
from jigsaw_triton.runtime.batches import Failure
from jigsaw_triton.runtime.dtypes import Array, Arrays
from jigsaw_triton.runtime.messages import LONGEST
from jigsaw_triton.runtime.runners import Runner, load_runner
from jigsaw_triton.runtime.spec import RunnerSpec, TensorSpec

X = (TensorSpec("X", "FP32", (-1,)),)
Y = (TensorSpec("Y", "FP32", (-1,)),)


class Double(Runner):
    """Doubles; chokes on 13; remembers the shapes it was called with."""

    def __init__(self, spec: RunnerSpec) -> None:
        super().__init__(spec)
        self.shapes: list[tuple[int, ...]] = []

    def run(self, inputs: Arrays) -> Arrays:
        self.shapes.append(inputs["X"].shape)
        if 13 in inputs["X"]:
            raise ValueError("thirteen")
        return {"Y": 2 * inputs["X"]}


class Fixed(Runner):
    """Answers what it is told to."""

    def __init__(self, spec: RunnerSpec, outputs: Arrays) -> None:
        super().__init__(spec)
        self.outputs = outputs

    def run(self, inputs: Arrays) -> Arrays:
        return self.outputs


def asks(*rows: list[list[float]]) -> list[dict[str, Array]]:
    return [{"X": np.array(row, np.float32)} for row in rows]


def values(results: list[dict[str, Array] | Failure]) -> list[list[list[float]] | str]:
    return [r.message if isinstance(r, Failure) else r["Y"].tolist() for r in results]


def test_requests_are_joined() -> None:
    runner = Double(RunnerSpec("x", X, Y))
    assert values(runner.answer(asks([[1], [2]], [[3]]))) == [[[2], [4]], [[6]]]
    assert runner.shapes == [(3, 1)]


def test_requests_of_different_shapes_are_run_apart() -> None:
    runner = Double(RunnerSpec("x", X, Y))
    assert values(runner.answer(asks([[1]], [[2, 3]], [[4]]))) == [[[2]], [[4, 6]], [[8]]]
    assert runner.shapes == [(2, 1), (1, 2)]


def test_items_are_run_one_by_one_where_they_do_not_stack() -> None:
    runner = Double(RunnerSpec("x", X, Y, stack=False))
    assert values(runner.answer(asks([[1], [2]], [[3, 4]]))) == [[[2], [4]], [[6, 8]]]
    assert runner.shapes == [(1, 1), (1, 1), (1, 2)]


@pytest.mark.parametrize("stack", [True, False])
def test_a_request_that_makes_the_model_fail_harms_no_other(stack: bool) -> None:
    runner = Double(RunnerSpec("x", X, Y, stack=stack))
    assert values(runner.answer(asks([[1]], [[13]], [[3]]))) == [[[2]], "ValueError: thirteen", [[6]]]


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({}, "ValueError: output Y is missing"),
        ({"Y": np.zeros((1, 1), np.float32), "Z": np.zeros(1)}, "ValueError: output Z was not declared; there are Y"),
        ({"Y": np.zeros((1, 1))}, "ValueError: output Y is of type float64 where FP32 was declared"),
        ({"Y": np.zeros((2, 1), np.float32)}, "ValueError: output Y has shape [2, 1] where [1, -1] was declared"),
    ],
)
def test_wrong_outputs_are_errors_that_say_which(outputs: Arrays, words: str) -> None:
    assert values(Fixed(RunnerSpec("x", X, Y), outputs).answer(asks([[1]]))) == [words]


@pytest.mark.parametrize("texts", [np.array([["a"]]), np.array([[b"a"]]), np.array([["a"]], np.object_)])
def test_strings_of_every_kind_are_bytes(texts: Array) -> None:
    runner = Fixed(RunnerSpec("x", X, (TensorSpec("Y", "BYTES", (1,)),)), {"Y": texts})
    (result,) = runner.answer(asks([[1]]))
    assert isinstance(result, dict)
    assert result["Y"].dtype == np.object_


def test_an_unknown_runner_comes_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no runner 'tf'; there are emulated, onnxruntime, python, torch"):
        load_runner(tmp_path, RunnerSpec("tf", X, Y))


def test_a_missing_package_comes_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(runners, "import_module", missing)
    with pytest.raises(RuntimeError, match="lacks the package torch; pip install torch"):
        load_runner(tmp_path, RunnerSpec("torch", X, Y))


@pytest.mark.parametrize(
    ("runner", "file"), [("onnxruntime", "model.onnx"), ("torch", "model.pt"), ("python", "model.py")]
)
def test_a_missing_artifact_is_named(tmp_path: Path, runner: str, file: str) -> None:
    with pytest.raises(RuntimeError, match=f"artifact {file} is missing"):
        load_runner(tmp_path, RunnerSpec(runner, X, Y))


class Panicking(Runner):
    def run(self, inputs: Arrays) -> Arrays:
        raise type("PanicException", (BaseException,), {})("\ud800" + "x" * 9999)


def test_whatever_a_model_raises_is_told_its_request_in_short() -> None:
    (failure,) = Panicking(RunnerSpec("x", X, Y)).answer(asks([[1]]))
    assert failure == Failure(f"PanicException: \\ud800{'x' * (LONGEST - 1)}...", "model")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ([[b"a\0"]], [[b"a\0"]]),
        (np.array([["\u00e9"]]), [["\u00e9".encode()]]),
        ([[None]], "ValueError: output Y: NoneType where bytes or text are expected"),
    ],
)
def test_bytes_and_text_are_bytes(made: Any, expected: object) -> None:
    text = (TensorSpec("Y", "BYTES", (1,)),)
    assert values(Fixed(RunnerSpec("x", X, text), {"Y": made}).answer(asks([[1]]))) == [expected]
