import re
from pathlib import Path

import pytest

from jigsaw_triton.runtime import spec as module
from jigsaw_triton.runtime.spec import (
    EmulationSpec,
    PipelineSpec,
    PipelineStep,
    RunnerSpec,
    StepSpec,
    TensorSpec,
    pipeline_from_json,
    runner_from_json,
    step_from_json,
    to_json,
)

X = TensorSpec("X", "FP32", (-1, 3))
Y = TensorSpec("Y", "BYTES", ())
HEADER = Path(__file__).parents[2] / "native" / "core" / "spec.h"


def test_a_runner_spec_survives_a_round_trip() -> None:
    emulation = EmulationSpec((0.5, 1.0), 1.2, 1.4, 0.1, {"Y": 2.6}, deterministic=True)
    spec = RunnerSpec("emulated", (X,), (Y,), False, 3, {"a": "b"}, ("Y",), emulation)
    assert runner_from_json(to_json(spec)) == spec
    assert runner_from_json(to_json(RunnerSpec("torch", (X,), (Y,)))) == RunnerSpec("torch", (X,), (Y,))


def test_a_step_spec_survives_a_round_trip() -> None:
    spec = StepSpec("crop", "steps/crop.py", (X,), (Y, X), (Y,))
    assert step_from_json(to_json(spec)) == spec


def test_a_pipeline_spec_survives_a_round_trip() -> None:
    step = PipelineStep("g.t.g1", {"X": "inputs.X"}, {"Y": "t.Y"})
    spec = PipelineSpec("g", {"X": "inputs.X"}, {"Y": "t.Y"}, (step,), split=True, slo_ms=70.0)
    assert pipeline_from_json(to_json(spec)) == spec


def test_equal_specifications_give_equal_text() -> None:
    one, other = ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    texts = {to_json(RunnerSpec("x", (X,), (Y,), parameters=parameters)) for parameters in (one, other)}
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("python_name", "cpp_name"),
    [
        ("SPEC_VERSION", "kSpecVersion"),
        ("ROUTE_VERSION", "kRouteVersion"),
        ("CLOCK_TENSOR", "kClockTensor"),
        ("TOKEN_OUTPUT", "kTokenTensor"),
        ("ROWS_PREFIX", "kRowsPrefix"),
        ("ANSWERED_OUTPUT", "kAnsweredTensor"),
        ("ANSWER_PREFIX", "kAnswerPrefix"),
    ],
)
def test_the_compiled_backend_has_the_same_constants(python_name: str, cpp_name: str) -> None:
    (value,) = re.findall(rf'{cpp_name} = "?(.*?)"?;', HEADER.read_text())
    assert value == str(getattr(module, python_name))
