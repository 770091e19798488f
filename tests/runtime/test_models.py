"""Tests of variants and Python steps as the Python backend calls them, with a fake of its module."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from jigsaw_triton.resources import templates_dir
from jigsaw_triton.runtime.spec import (
    ANSWER_PREFIX,
    ANSWERED_OUTPUT,
    RUN_DIR_VARIABLE,
    TOKEN_OUTPUT,
    RunnerSpec,
    StepSpec,
    TensorSpec,
)
from jigsaw_triton.runtime.steps import STEP_FILE
from jigsaw_triton.runtime.trace import run_from_json
from tests.runtime import fake_pb_utils as pb
from tests.runtime.conftest import Start, column, content

X, Y, Z = TensorSpec("X", "INT64", (1,)), TensorSpec("Y", "INT64", (1,)), TensorSpec("Z", "INT64", (1,))


@pytest.mark.parametrize(
    "template", sorted(path.name for path in templates_dir().iterdir() if any(path.glob("config*.pbtxt")))
)
def test_each_template_has_a_valid_configuration(template: str) -> None:
    for path in (templates_dir() / template).glob("config*.pbtxt"):
        config = text_format.Parse(path.read_text(), ModelConfig())
        # Variants of the template `folder` bring a configuration that names their backend or platform.
        assert (bool(config.backend) != bool(config.platform)) == (template != "folder")


MODEL = """\
class Model:
    def __init__(self, folder, parameters, threads): pass
    def __call__(self, inputs):
        if 7 in inputs["X"]: raise ValueError("seven")
        return {"Y": inputs["X"] + 1, "Z": inputs["X"] + 2}
"""


def variant(start: Start, folder: Path) -> Any:
    """Loads a variant with two outputs."""
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "variant.py").write_text(MODEL)
    return start("python", RunnerSpec("python", (X,), (Y, Z)), folder)


def test_a_variant_answers_with_the_requested_outputs(start: Start, tmp_path: Path) -> None:
    requests = [
        pb.Request({"X": column(1)}, ("Z",)),
        pb.Request({"X": column(7)}, ("Z",)),
        pb.Request({"X": column(3)}, ("Y", "Z")),
    ]
    assert [content(response) for response in variant(start, tmp_path).execute(requests)] == [
        {"Z": [3]},
        ("ValueError: seven", pb.TritonError.INTERNAL),
        {"Y": [4], "Z": [5]},
    ]


def test_a_variant_answers_each_call_with_its_token(start: Start, tmp_path: Path) -> None:
    requests = [
        pb.Request({"X": column(1, 2)}, ("Y", TOKEN_OUTPUT), request_id="#11"),
        pb.Request({"X": column(7)}, ("Y", TOKEN_OUTPUT), request_id="#12"),
        pb.Request({"X": column(3)}, (TOKEN_OUTPUT, "Y"), request_id="one,two#13"),
        pb.Request({"X": column(4)}, ("Y", TOKEN_OUTPUT)),
    ]
    assert [content(response) for response in variant(start, tmp_path).execute(requests)] == [
        {"Y": [2, 3], TOKEN_OUTPUT: [11, 11]},
        ("ValueError: seven", pb.TritonError.INTERNAL),
        {TOKEN_OUTPUT: [13], "Y": [4]},
        {"Y": [5], TOKEN_OUTPUT: [0]},
    ]


def test_a_variant_traces_batches_of_requests_with_an_id(start: Start, tmp_path: Path) -> None:
    model = variant(start, tmp_path / "node-0-1g-0" / "d")
    model.execute([pb.Request({"X": column(1, 2)}, ("Y",), request_id="#9")])
    assert not (tmp_path / "run").exists()
    model.execute(
        [
            pb.Request({"X": column(1, 2)}, ("Y",), request_id="a,b#11"),
            pb.Request({"X": column(3)}, ("Y",), request_id="#12"),
            pb.Request({"X": column(7)}, ("Y",), request_id="c#13"),
        ]
    )
    (line,) = (tmp_path / "run" / "traces" / "workers" / "node-0-1g-0" / "d_0_0.jsonl").read_text().splitlines()
    run = run_from_json(line)
    assert (run.ids, run.tokens, run.worker, run.model) == (("a", "b", "c"), (11, 13), "node-0-1g-0", "d")
    assert run.items == 4
    assert run.took_ms >= 0


def test_a_variant_outside_a_deployment_traces_nothing(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(RUN_DIR_VARIABLE)
    (response,) = variant(start, tmp_path).execute([pb.Request({"X": column(1)}, ("Y",), request_id="a#1")])
    assert content(response) == {"Y": [2]}


CODE = """\
from jigsaw_triton.runtime.steps import Answer

def step(A):
    if A[0] == 7:
        raise ValueError("seven \\0 \\ud800")
    if A[0] == 100:
        return Answer(END=A, MID=A + 1)
    return {"B": A * 10}
"""
STEP_OUTPUTS = ("B", TOKEN_OUTPUT, ANSWERED_OUTPUT, f"{ANSWER_PREFIX}MID", f"{ANSWER_PREFIX}END")
"""Outputs that the gateway requests of a step's model."""


def code(start: Start, folder: Path, source: str = CODE) -> Any:
    """Loads the model of a Python step with output B, in a graph with outputs MID and END."""
    (folder / "1").mkdir(parents=True)
    (folder / "1" / STEP_FILE).write_text(source)
    tensors = {name: TensorSpec(name, "INT64", (1,)) for name in ("A", "B", "MID", "END")}
    answers = (tensors["MID"], tensors["END"])
    return start("step", StepSpec("two", "steps/two.py", (tensors["A"],), (tensors["B"],), answers), folder)


def test_a_step_runs_its_code_once_per_request(start: Start, tmp_path: Path) -> None:
    requests = [
        pb.Request({"A": column(value)}, STEP_OUTPUTS, request_id=f"#{token}")
        for token, value in ((1, 2), (2, 7), (3, 3))
    ]
    assert [content(response) for response in code(start, tmp_path).execute(requests)] == [
        {"B": [20], TOKEN_OUTPUT: [1], ANSWERED_OUTPUT: [0]},
        (r"step two: ValueError: seven \0 \ud800 (steps/two.py:5)", pb.TritonError.INTERNAL),
        {"B": [30], TOKEN_OUTPUT: [3], ANSWERED_OUTPUT: [0]},
    ]


def test_a_step_may_answer_the_whole_request(start: Start, tmp_path: Path) -> None:
    (response,) = code(start, tmp_path).execute([pb.Request({"A": column(100)}, STEP_OUTPUTS, request_id="#5")])
    assert content(response) == {
        TOKEN_OUTPUT: [5],
        ANSWERED_OUTPUT: [1],
        f"{ANSWER_PREFIX}MID": [101],
        f"{ANSWER_PREFIX}END": [100],
    }


def test_a_step_traces_requests_with_an_id(start: Start, tmp_path: Path) -> None:
    model = code(start, tmp_path / "steps-g" / "d")
    model.execute([pb.Request({"A": column(1)}, STEP_OUTPUTS, request_id="#5")])
    model.execute([pb.Request({"A": column(7)}, STEP_OUTPUTS, request_id="a#6")])
    (line,) = (tmp_path / "run" / "traces" / "workers" / "steps-g" / "d_0_0.jsonl").read_text().splitlines()
    run = run_from_json(line)
    assert (run.ids, run.tokens, run.worker, run.items) == (("a",), (6,), "steps-g", 1)


def test_a_step_that_cannot_be_loaded_fails_the_model(start: Start, tmp_path: Path) -> None:
    # The fixture reloads the runtime, so this is not the StepError that this module could import.
    with pytest.raises(Exception, match=r"step two: ModuleNotFoundError: No module named 'nowhere' \(steps/two.py:1\)"):
        code(start, tmp_path, f"import nowhere\n{CODE}")
