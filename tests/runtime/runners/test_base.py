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
from jigsaw_triton.runtime.spec import ROWS_PREFIX, RunnerSpec, TensorSpec

X = (TensorSpec("X", "FP32", (-1,)),)
Y = (TensorSpec("Y", "FP32", (-1,)),)


class Double(Runner):
    """Doubles its input, fails on 13, and records the shapes of its calls."""

    def __init__(self, spec: RunnerSpec) -> None:
        super().__init__(spec)
        self.shapes: list[tuple[int, ...]] = []

    def run(self, inputs: Arrays) -> Arrays:
        self.shapes.append(inputs["X"].shape)
        if 13 in inputs["X"]:
            raise ValueError("output 13 is unlucky")
        return {"Y": 2 * inputs["X"]}


class Fixed(Runner):
    """Always returns the same outputs."""

    def __init__(self, spec: RunnerSpec, outputs: Any) -> None:
        super().__init__(spec)
        self.outputs = outputs

    def run(self, inputs: Arrays) -> Arrays:
        outputs: Arrays = self.outputs
        return outputs


class Repeating(Runner):
    """Repeats the first value of each item as many times as the value itself."""

    def run(self, inputs: Arrays) -> Arrays:
        return {"Y": np.repeat(inputs["X"][:, :1], int(inputs["X"][0, 0]), axis=1)}


def asks(*rows: Sequence[Sequence[float]]) -> list[dict[str, Array]]:
    return [{"X": np.array(row, np.float32)} for row in rows]


def values(results: list[dict[str, Array] | Failure]) -> list[list[list[float]] | str]:
    return [r.message if isinstance(r, Failure) else r["Y"].tolist() for r in results]


def test_requests_of_equal_shapes_are_joined() -> None:
    runner = Double(RunnerSpec("x", X, Y))
    assert values(runner.answer(asks([[1], [2]], [[3]]))) == [[[2], [4]], [[6]]]
    assert runner.shapes == [(3, 1)]


def test_requests_of_different_shapes_are_run_separately() -> None:
    runner = Double(RunnerSpec("x", X, Y))
    assert values(runner.answer(asks([[1]], [[2, 3]], [[4]]))) == [[[2]], [[4, 6]], [[8]]]
    assert runner.shapes == [(2, 1), (1, 2)]


def test_items_that_do_not_stack_are_run_one_by_one() -> None:
    runner = Double(RunnerSpec("x", X, Y, stack=False))
    assert values(runner.answer(asks([[1], [2]], [[3, 4]]))) == [[[2], [4]], [[6, 8]]]
    assert runner.shapes == [(1, 1), (1, 1), (1, 2)]


@pytest.mark.parametrize("stack", [True, False])
def test_a_request_that_makes_the_model_fail_does_not_affect_others(stack: bool) -> None:
    runner = Double(RunnerSpec("x", X, Y, stack=stack))
    good, bad, other = runner.answer(asks([[1]], [[13]], [[3]]))
    assert values([good, other]) == [[[2]], [[6]]]
    assert bad == Failure("ValueError: output 13 is unlucky", "model")


def test_after_a_failure_only_requests_of_its_shape_are_rerun() -> None:
    runner = Double(RunnerSpec("x", X, Y))
    assert values(runner.answer(asks([[1]], [[2, 2]], [[13]], [[3, 3]])))[::2] == [
        [[2]],
        "ValueError: output 13 is unlucky",
    ]
    assert runner.shapes == [(2, 1), (1, 1), (1, 1), (2, 2)]


def test_after_a_failed_item_the_rest_of_its_request_is_not_run() -> None:
    runner = Double(RunnerSpec("x", X, Y, stack=False))
    assert values(runner.answer(asks([[1], [13], [2]], [[3]]))) == ["ValueError: output 13 is unlucky", [[6]]]
    assert runner.shapes == [(1, 1)] * 3


def test_items_whose_outputs_differ_in_shape_fail_only_their_request() -> None:
    runner = Repeating(RunnerSpec("x", X, Y, stack=False))
    mixed, same = runner.answer(asks([[1], [2]], [[2], [2]]))
    assert mixed == Failure("output Y differs in shape between the items of the request: [1], [2]", "request")
    assert values([same]) == [[[2, 2], [2, 2]]]


def test_rows_are_padded_and_counted_if_the_spec_requires_it() -> None:
    runner = Repeating(RunnerSpec("x", X, Y, stack=False, pads=("Y",)))
    mixed, empty, one = runner.answer(asks([[1], [3]], [[0]], [[2]]))
    assert values([mixed, empty, one]) == [[[1, 0, 0], [3, 3, 3]], [[]], [[2, 2]]]
    rows = [result[f"{ROWS_PREFIX}Y"].tolist() for result in (mixed, empty, one) if isinstance(result, dict)]
    assert rows == [[[1], [3]], [[0]], [[2]]]


def test_rows_of_text_are_padded_with_empty_text() -> None:
    class Words(Runner):
        def run(self, inputs: Arrays) -> Arrays:
            return {"Y": np.full((1, int(inputs["X"].item())), "w", np.object_)}

    spec = RunnerSpec("x", X, (TensorSpec("Y", "BYTES", (-1,)),), stack=False, pads=("Y",))
    (result,) = Words(spec).answer(asks([[1], [2]]))
    assert isinstance(result, dict)
    assert result["Y"].tolist() == [[b"w", b""], [b"w", b"w"]]


def test_inputs_that_differ_in_batch_size_fail_only_their_request() -> None:
    """If the two invalid requests were joined, their batch sizes would agree."""
    runner = Double(RunnerSpec("x", (*X, TensorSpec("W", "FP32", (1,))), Y))

    def ask(x: int, w: int) -> dict[str, Array]:
        return {"X": np.ones((x, 1), np.float32), "W": np.ones((w, 1), np.float32)}

    first, good, last = runner.answer([ask(1, 2), ask(1, 1), ask(2, 1)])
    assert first == Failure("inputs differ in batch size: X has 1, W has 2", "request")
    assert last == Failure("inputs differ in batch size: X has 2, W has 1", "request")
    assert values([good]) == [[[2]]]
    assert runner.shapes == [(1, 1)]


@pytest.mark.parametrize("stack", [True, False])
def test_a_request_without_items_gets_empty_outputs(stack: bool) -> None:
    (result,) = Double(RunnerSpec("x", X, Y, stack=stack)).answer([{"X": np.empty((0, 3), np.float32)}])
    assert isinstance(result, dict)
    assert result["Y"].shape == (0, 3)


@given(
    st.lists(st.lists(st.sampled_from([[1.0], [2.0], [13.0], [3.0, 4.0]]), min_size=1, max_size=3), max_size=6),
    st.booleans(),
)
def test_joining_requests_does_not_change_their_answers(rows: list[list[list[float]]], stack: bool) -> None:
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
def test_wrong_outputs_are_errors_that_name_them(outputs: Any, words: str) -> None:
    (failure,) = Fixed(RunnerSpec("x", X, Y), outputs).answer(asks([[1]]))
    assert failure == Failure(words, "model")


def test_an_output_that_is_no_array_is_an_error() -> None:
    class Strange:
        def __array__(self, *_: object) -> Array:
            raise TypeError("it is on the GPU")

    (failure,) = Fixed(RunnerSpec("x", X, Y), {"Y": Strange()}).answer(asks([[1]]))
    assert failure == Failure("output Y: it is on the GPU", "model")


@pytest.mark.parametrize("texts", [np.array([["a"]]), np.array([[b"a"]]), np.array([["a"]], np.object_)])
def test_strings_of_every_numpy_type_become_bytes(texts: Array) -> None:
    runner = Fixed(RunnerSpec("x", X, (TensorSpec("Y", "BYTES", (1,)),)), {"Y": texts})
    (result,) = runner.answer(asks([[1]]))
    assert isinstance(result, dict)
    assert result["Y"].dtype == np.object_


def test_an_unknown_runner_is_reported_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no runner 'tf'; use one of emulated, python, torch"):
        load_runner(tmp_path, RunnerSpec("tf", X, Y))


def test_a_missing_package_is_reported_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(runners, "import_module", missing)
    with pytest.raises(RuntimeError, match="lacks the package torch; run pip install torch"):
        load_runner(tmp_path, RunnerSpec("torch", X, Y))


@pytest.mark.parametrize(("runner", "file"), [("torch", "model.pt"), ("python", "model.py")])
def test_a_missing_artifact_is_reported(tmp_path: Path, runner: str, file: str) -> None:
    with pytest.raises(RuntimeError, match=f"artifact {file} is missing"):
        load_runner(tmp_path, RunnerSpec(runner, X, Y))


class Panicking(Runner):
    def run(self, inputs: Arrays) -> Arrays:
        raise type("PanicException", (BaseException,), {})("\ud800" + "x" * 9999)


def test_any_exception_of_a_model_becomes_a_short_message() -> None:
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
def test_bytes_and_text_become_bytes(made: Any, expected: object) -> None:
    text = (TensorSpec("Y", "BYTES", (1,)),)
    assert values(Fixed(RunnerSpec("x", X, text), {"Y": made}).answer(asks([[1]]))) == [expected]
