from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.runtime import runners
from jigsaw_triton.runtime.dtypes import Array, Arrays
from jigsaw_triton.runtime.messages import LONGEST
from jigsaw_triton.runtime.outcome import Failure
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
            raise ValueError("output 13 is unlucky")
        return {"Y": 2 * inputs["X"]}


class Fixed(Runner):
    """Returns the same outputs always."""

    def __init__(self, spec: RunnerSpec, outputs: Any) -> None:
        super().__init__(spec)
        self.outputs = outputs

    def run(self, inputs: Arrays) -> Arrays:
        outputs: Arrays = self.outputs
        return outputs


class Repeating(Runner):
    """Repeats each item's first value as often as that value says."""

    def run(self, inputs: Arrays) -> Arrays:
        return {"Y": np.repeat(inputs["X"][:, :1], int(inputs["X"][0, 0]), axis=1)}


def asks(*rows: Sequence[Sequence[float]]) -> list[dict[str, Array]]:
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
    good, bad, other = runner.answer(asks([[1]], [[13]], [[3]]))
    assert values([good, other]) == [[[2]], [[6]]]
    assert bad == Failure("ValueError: output 13 is unlucky", "model")


def test_a_failure_runs_only_the_requests_of_its_own_shape_again() -> None:
    runner = Double(RunnerSpec("x", X, Y))
    assert values(runner.answer(asks([[1]], [[2, 2]], [[13]], [[3, 3]])))[::2] == [
        [[2]],
        "ValueError: output 13 is unlucky",
    ]
    assert runner.shapes == [(2, 1), (1, 1), (1, 1), (2, 2)]


def test_the_rest_of_a_request_whose_item_failed_is_not_run() -> None:
    runner = Double(RunnerSpec("x", X, Y, stack=False))
    assert values(runner.answer(asks([[1], [13], [2]], [[3]]))) == ["ValueError: output 13 is unlucky", [[6]]]
    assert runner.shapes == [(1, 1)] * 3


def test_items_whose_outputs_differ_in_shape_fail_their_request_alone() -> None:
    runner = Repeating(RunnerSpec("x", X, Y, stack=False))
    mixed, same = runner.answer(asks([[1], [2]], [[2], [2]]))
    assert mixed == Failure("output Y differs in shape between the items of the request: [1], [2]", "request")
    assert values([same]) == [[[2, 2], [2, 2]]]


def test_inputs_that_differ_in_batch_size_fail_their_request_alone() -> None:
    """Joined, the two requests that do not fit would fit each other."""
    runner = Double(RunnerSpec("x", (*X, TensorSpec("W", "FP32", (1,))), Y))

    def ask(x: int, w: int) -> dict[str, Array]:
        return {"X": np.ones((x, 1), np.float32), "W": np.ones((w, 1), np.float32)}

    first, good, last = runner.answer([ask(1, 2), ask(1, 1), ask(2, 1)])
    assert first == Failure("inputs differ in batch size: X has 1, W has 2", "request")
    assert last == Failure("inputs differ in batch size: X has 2, W has 1", "request")
    assert values([good]) == [[[2]]]
    assert runner.shapes == [(1, 1)]


@pytest.mark.parametrize("stack", [True, False])
def test_a_request_without_items(stack: bool) -> None:
    (result,) = Double(RunnerSpec("x", X, Y, stack=stack)).answer([{"X": np.empty((0, 3), np.float32)}])
    assert isinstance(result, dict)
    assert result["Y"].shape == (0, 3)


@given(
    st.lists(st.lists(st.sampled_from([[1.0], [2.0], [13.0], [3.0, 4.0]]), min_size=1, max_size=3), max_size=6),
    st.booleans(),
)
def test_every_request_gets_the_answer_that_it_gets_alone(rows: list[list[list[float]]], stack: bool) -> None:
    uniform = [row for row in rows if len({len(item) for item in row}) == 1]
    spec = RunnerSpec("x", X, Y, stack=stack)
    alone = [values(Double(spec).answer(asks(row)))[0] for row in uniform]
    assert values(Double(spec).answer(asks(*uniform))) == alone


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({}, "output Y is missing"),
        (None, "the model returned NoneType, not outputs by name"),
        ({"Y": np.zeros((1, 1), np.float32), "Z": np.zeros(1)}, "output Z was not declared; there are Y"),
        ({"Y": np.zeros((1, 1))}, "output Y is of type float64 where FP32 was declared"),
        ({"Y": np.zeros((2, 1), np.float32)}, "output Y has shape [2, 1] where [1, -1] was declared"),
        ({"Y": np.zeros(1, np.float32)}, "output Y has shape [1] where [1, -1] was declared"),
    ],
)
def test_wrong_outputs_are_errors_that_say_which(outputs: Any, words: str) -> None:
    (failure,) = Fixed(RunnerSpec("x", X, Y), outputs).answer(asks([[1]]))
    assert failure == Failure(words, "model")


def test_what_numpy_makes_no_array_of_is_told() -> None:
    class Strange:
        def __array__(self, *_: object) -> Array:
            raise TypeError("it is on the GPU")

    (failure,) = Fixed(RunnerSpec("x", X, Y), {"Y": Strange()}).answer(asks([[1]]))
    assert failure == Failure("output Y: it is on the GPU", "model")


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
        ([[None]], "output Y: NoneType where bytes or text are expected"),
    ],
)
def test_bytes_and_text_are_bytes(made: Any, expected: object) -> None:
    text = (TensorSpec("Y", "BYTES", (1,)),)
    assert values(Fixed(RunnerSpec("x", X, text), {"Y": made}).answer(asks([[1]]))) == [expected]
