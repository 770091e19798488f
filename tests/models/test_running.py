"""Mistakes that only a run of the model shows."""

from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.child_process import ChildProcess
from tests.fakes.documents import edited, line_of
from tests.fakes.onnx_files import identity
from tests.fakes.onnx_models import FLOAT, INT64, STRING, classifier, model, node, tensor
from tests.models.conftest import GRAPH, MODEL, PYTHON, Check
from tests.waiting import WAIT_LIMIT_S

pytestmark = pytest.mark.usefixtures("kept_models")

CALL = 'return {"LABEL": inputs["X"].argmax(axis=1)}'
LINE = line_of(PYTHON, "name: only")
DECLARED = line_of(PYTHON, "LABEL: {")


def test_a_model_that_returns_what_is_declared_is_accepted(tmp_path: Path, check: Check) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    assert check(PYTHON, run=True) == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (
            CALL,
            'return {"LABEL": inputs["X"]}',
            f"{DECLARED}: classify.only returns 'LABEL' as FP32 [4], but classify declares INT64 []; write LABEL:"
            f" {{dtype:"
            " FP32, shape: [4]}",
        ),
        (
            CALL,
            'return {"label": inputs["X"].argmax(axis=1)}',
            f"{DECLARED}: classify.only has no output 'LABEL'; write label: {{dtype: INT64, shape: []}}",
        ),
        (
            CALL,
            'return {"LABEL": inputs["X"].argmax()}',
            f"{DECLARED}: classify.only returns 'LABEL' as INT64 without a batch dimension, but classify declares"
            " INT64 [];"
            " give it a batch dimension",
        ),
        (
            "pass",
            'raise ValueError("no weights")',
            f"{LINE}: classify.only cannot be loaded: ValueError: no weights; correct the model or its parameters",
        ),
        (
            CALL,
            "import os; os.kill(os.getpid(), 11)",
            f"{LINE}: classify.only ends its process (signal SIGSEGV); correct the model; validate --no-models"
            " runs none",
        ),
        (
            CALL,
            "import os; os._exit(3)",
            f"{LINE}: classify.only ends its process with status 3; correct the model; validate --no-models runs none",
        ),
        (
            CALL,
            "return 5",
            "classify.only fails on random data, which may not suit it: the model returned int, not outputs by name",
        ),
        (
            CALL,
            'raise ValueError("first\\nsecond\\nthird\\n")',
            "classify.only fails on random data, which may not suit it: ValueError: first ... third",
        ),
        (CALL, "raise KeyError(7)", "classify.only fails on random data, which may not suit it: KeyError: 7"),
        (
            "import numpy",
            "import no_such_module",
            "classify.only was not run, because the Python package no_such_module is not installed",
        ),
        (
            CALL,
            'assert len(inputs["X"]) == 1, "one"; return {"LABEL": np.zeros(1, int)}',
            "classify.only fails on a batch of 2, so only a batch size of 1 can be used: AssertionError: one",
        ),
        (
            CALL,
            'return {"LABEL": np.zeros(1, int)}',
            "classify.only fails on a batch of 2, so only a batch size of 1 can be used: the output LABEL has no batch"
            " dimension of 2",
        ),
    ],
    ids=[
        "type",
        "name",
        "no batch",
        "load",
        "crash",
        "exit",
        "no outputs",
        "lines",
        "random data",
        "package",
        "batch",
        "batch size",
    ],
)
def test_a_model_that_fails_is_named(tmp_path: Path, check: Check, old: str, new: str, found: str) -> None:
    (tmp_path / "model.py").write_text(edited(MODEL, (old, new)))
    assert check(PYTHON, run=True) == [found]


@pytest.mark.slow
def test_a_model_that_hangs_is_ended_and_the_others_are_run(
    tmp_path: Path, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ChildProcess.call
    # The process for the second model is new, and may take long to import its libraries.
    limits_s = iter([1, WAIT_LIMIT_S])
    monkeypatch.setattr(ChildProcess, "call", lambda process, request, _: call(process, request, next(limits_s)))
    last = "        - {name: only"
    other = (
        f"{last.replace('only', 'other')}, accuracy: 1, template: python, artifacts: {{model.py: other.py}}}}\n{last}"
    )
    text = edited(PYTHON, (last, other))
    (tmp_path / "model.py").write_text(edited(MODEL, (CALL, 'return {"LABEL": inputs["X"]}')))
    (tmp_path / "other.py").write_text(edited(MODEL, ("pass", "import time; time.sleep(3600)")))
    hung, wrong = check(text, run=True, timeout_s=1)
    assert "classify.only returns 'LABEL' as FP32" in hung + wrong
    assert f"{line_of(text, 'name: other')}: classify.other has not answered after 1 s" in hung + wrong


def test_a_model_that_fails_on_the_sample_is_a_mistake(tmp_path: Path, check: Check) -> None:
    np.save(tmp_path / "x.npy", np.full(4, 7, np.float32))
    (tmp_path / "model.py").write_text(edited(MODEL, (CALL, 'raise ValueError(inputs["X"].tolist())')))
    text = edited(PYTHON, ("  slo:", "  sample: {X: x.npy}\n  slo:"))
    (found,) = check(text, run=True)
    assert (
        "classify.only fails on the sample: ValueError: [[7.0, 7.0, 7.0, 7.0]]; correct the model or the sample"
        in found
    )


def test_an_onnx_model_is_run(tmp_path: Path, check: Check) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "model.onnx").write_bytes(classifier())
    assert check(GRAPH, run=True) == []
    unknown = model(
        [node("NoSuchOperator", ["X"], "LABEL", domain="")],
        [tensor("X", FLOAT, ["N", 4])],
        [tensor("LABEL", INT64, ["N"])],
    )
    (tmp_path / "model.onnx").write_bytes(unknown)
    (found,) = check(GRAPH, run=True)
    assert "classify.only cannot be loaded" in found
    assert "NoSuchOperator" in found


def test_text_is_passed_to_an_onnx_model(tmp_path: Path, check: Check) -> None:
    pytest.importorskip("onnxruntime")
    content = model(
        [node("Identity", ["X"], "LABEL")], [tensor("X", STRING, ["N", 4])], [tensor("LABEL", STRING, ["N", 4])]
    )
    (tmp_path / "model.onnx").write_bytes(content)
    text = edited(
        GRAPH, ("X: {dtype: FP32", "X: {dtype: BYTES"), ("dtype: INT64, shape: []", "dtype: BYTES, shape: [4]")
    )
    assert check(text, run=True) == []


def test_an_onnx_model_with_bf16_is_only_loaded(tmp_path: Path, check: Check) -> None:
    pytest.importorskip("onnxruntime")
    text = edited(
        GRAPH,
        ("X: {dtype: FP32", "X: {dtype: BF16"),
        ("dtype: INT64, shape: []", "dtype: BF16, shape: [4]"),
        ("    LABEL: classify.LABEL", "    Y: classify.Y"),
        ("        LABEL: {", "        Y: {"),
    )
    (tmp_path / "model.onnx").write_bytes(identity("BF16", ("batch", 4)))
    note = "classify.only was loaded but not run, because onnxruntime can pass BF16 in workers only"
    assert check(text, run=True) == [note]


def test_files_of_a_variant_are_beside_each_other(tmp_path: Path, check: Check) -> None:
    source = edited(MODEL, ("pass", 'self.shift = int((folder / "shift.txt").read_text())'))
    (tmp_path / "model.py").write_text(source)
    (tmp_path / "two.txt").write_text("2")
    assert check(edited(PYTHON, ("{model.py: model.py}", "{model.py: model.py, shift.txt: two.txt}")), run=True) == []
