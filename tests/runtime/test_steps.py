from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.runtime.dtypes import Array
from jigsaw_triton.runtime.messages import LONGEST
from jigsaw_triton.runtime.spec import ANSWER_PREFIX, ANSWERED_OUTPUT, StepSpec, TensorSpec
from jigsaw_triton.runtime.steps import STEP_FILE, Answer, Step, StepError

OUTPUTS = (TensorSpec("Y", "INT64", (-1,)), TensorSpec("TEXT", "BYTES", (1,)))
ANSWERS = (TensorSpec("LABEL", "INT64", (1,)), TensorSpec("MORE", "INT64", (1,)))
BOTH = "{'Y': X * 2, 'TEXT': ['a']}"


def loaded(folder: Path, source: str) -> Step:
    (folder / STEP_FILE).write_text(source)
    return Step(folder, StepSpec("crop", "steps/crop.py", (TensorSpec("X", "INT64", (-1,)),), OUTPUTS, ANSWERS))


def returning(folder: Path, expression: str) -> Step:
    return loaded(
        folder,
        f"import numpy as np\nfrom jigsaw_triton.runtime.steps import Answer\ndef step(X):\n    return {expression}\n",
    )


def given(*values: int) -> dict[str, Array]:
    return {"X": np.array([values], np.int64)}


def test_the_code_gets_and_returns_the_tensors_of_one_request(tmp_path: Path) -> None:
    made = returning(tmp_path, "{'Y': X.reshape(3) * 2, 'TEXT': np.array(['é'])}")(given(1, 2, 3))
    assert made["Y"].tolist() == [[2, 4, 6]]
    assert made["TEXT"].tolist() == [["é".encode()]]
    assert made["TEXT"].dtype == np.object_
    assert made[ANSWERED_OUTPUT].tolist() == [[0]]
    assert made.keys() == {"Y", "TEXT", ANSWERED_OUTPUT}


@pytest.mark.parametrize(
    "text", ["np.array([b'\\xff\\x00'], object)", "[b'\\xff\\x00']", "np.array([np.bytes_(b'\\xff\\x00')], object)"]
)
def test_bytes_are_returned_unchanged(tmp_path: Path, text: str) -> None:
    made = returning(tmp_path, f"{{'Y': X, 'TEXT': {text}}}")(given(1))
    assert made["TEXT"].tolist() == [[b"\xff\x00"]]
    assert type(made["TEXT"][0, 0]) is bytes


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("None", "steps/crop.py: step returned NoneType, not outputs by name"),
        ("{'Y': X}", "steps/crop.py: output TEXT is missing"),
        ("{'Y': X, 'TEXT': ['a'], 'Z': X}", "steps/crop.py: output Z was not declared; there are Y, TEXT"),
        ("{'Y': X / 2, 'TEXT': ['a']}", "steps/crop.py: output Y is of type float64 where INT64 was declared"),
        ("{'Y': X[None], 'TEXT': ['a']}", "steps/crop.py: output Y has shape [1, 1, 1] where [1, -1] was declared"),
        ("{'Y': [[1], [1, 2]], 'TEXT': ['a']}", "steps/crop.py: output Y: setting an array element with a sequence"),
        ("{'Y': X, 'TEXT': [None]}", "steps/crop.py: output TEXT: NoneType where bytes or text are expected"),
        ("{'Y': X, 'TEXT': [1]}", "steps/crop.py: output TEXT: int where bytes or text are expected"),
        ("{'Y': X, 'TEXT': ['\\ud800']}", "steps/crop.py: output TEXT: 'utf-8' codec can't encode character"),
        ("{'Y': np.ma.masked_array(X), 'TEXT': b'a'}", "steps/crop.py: output TEXT has shape [1] where [1, 1] was"),
        ("{'Y': X[7:8].item(), 'TEXT': ['a']}", "ValueError: can only convert an array of size 1 to a Python scalar "),
    ],
)
def test_wrong_outputs_are_errors(tmp_path: Path, expression: str, message: str) -> None:
    with pytest.raises(StepError) as caught:
        returning(tmp_path, expression)(given(1))
    assert str(caught.value).startswith(f"step crop: {message}")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("raise ValueError('no box')", "ValueError: no box (steps/crop.py:2)"),
        ("raise SystemExit(3)", "SystemExit: 3 (steps/crop.py:2)"),
        ("raise type('PanicException', (BaseException,), {})('at 3')", "PanicException: at 3 (steps/crop.py:2)"),
        ("raise ValueError('x' * 9999)", f"ValueError: {'x' * LONGEST}... (steps/crop.py:2)"),
        ("return {'Y': inner(X)}", "ZeroDivisionError: division by zero (steps/crop.py:4)"),
        ("X[0] = 1", "ValueError: assignment destination is read-only (steps/crop.py:2)"),
    ],
)
def test_an_error_is_reported_with_the_line_of_the_code(tmp_path: Path, statement: str, message: str) -> None:
    step = loaded(tmp_path, f"def step(X):\n    {statement}\ndef inner(X):\n    return 1 / 0\n")
    with pytest.raises(StepError) as caught:
        step(given(1))
    assert str(caught.value) == f"step crop: {message}"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nowhere\n", "ModuleNotFoundError: No module named 'nowhere' (steps/crop.py:1)"),
        ("\ndef step(:\n", "SyntaxError: invalid syntax (steps/crop.py:2)"),
        ("x = 1\n", "steps/crop.py defines no function step"),
        ("raise SystemExit\n", "SystemExit:  (steps/crop.py:1)"),
    ],
)
def test_code_that_fails_to_load_is_reported(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(StepError) as caught:
        loaded(tmp_path, source)
    assert str(caught.value) == f"step crop: {message}"


def test_a_step_writes_nothing_to_tritons_folder(tmp_path: Path) -> None:
    returning(tmp_path, BOTH)(given(1))
    assert [path.name for path in tmp_path.rglob("*")] == [STEP_FILE]


def test_code_may_define_dataclasses(tmp_path: Path) -> None:
    step = loaded(
        tmp_path,
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Box:\n    size: int\n"
        f"def step(X):\n    Box(1)\n    return {BOTH}\n",
    )
    assert step(given(1)) == {"Y": [[2]], "TEXT": [[b"a"]], ANSWERED_OUTPUT: [[0]]}


def test_an_early_answer_has_the_outputs_of_the_graph(tmp_path: Path) -> None:
    made = returning(tmp_path, "Answer(LABEL=X[:1] + 1)")(given(4))
    assert made.keys() == {f"{ANSWER_PREFIX}LABEL", ANSWERED_OUTPUT}
    assert made[f"{ANSWER_PREFIX}LABEL"].tolist() == [[5]]
    assert made[ANSWERED_OUTPUT].tolist() == [[1]]
    assert made[ANSWERED_OUTPUT].dtype == np.uint8


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("Answer(Y=X)", "output Y was not declared; there are LABEL, MORE"),
        ("Answer(LABEL=X / 2)", "output LABEL is of type float64 where INT64 was declared"),
        ("Answer(LABEL=X, MORE=[1, 2])", "output MORE has shape [1, 2] where [1, 1] was declared"),
    ],
)
def test_an_early_answer_with_wrong_outputs_is_an_error(tmp_path: Path, expression: str, message: str) -> None:
    with pytest.raises(StepError) as caught:
        returning(tmp_path, expression)(given(1))
    assert str(caught.value) == f"step crop: steps/crop.py: {message}"


def test_an_answer_may_have_an_output_of_any_name() -> None:
    assert Answer(**{"self": 1, "LABEL-2": 2}).outputs == {"self": 1, "LABEL-2": 2}
