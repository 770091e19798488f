import pytest

from jigsaw_triton.runtime.spec import (
    Condition,
    DispatcherSpec,
    PipelineSpec,
    PipelineStep,
    RunnerSpec,
    TensorSpec,
    dispatcher_from_json,
    pipeline_from_json,
    runner_from_json,
    to_json,
)

X = TensorSpec("X", "FP32", (-1, 3), iterated=True)
Y = TensorSpec("Y", "BYTES", ())


@pytest.mark.parametrize("condition", [None, Condition(0.5, None), Condition(None, -1.0)])
def test_dispatchers_come_back_as_they_were(condition: Condition | None) -> None:
    spec = DispatcherSpec(
        "g",
        "t",
        "rows",
        (X,),
        (Y,),
        condition,
        call_timeout_ms=1,
        usual_timeout_ms=3,
        wait_timeout_ms=2,
        variants=("a", "b"),
        yields=("Y",),
    )
    assert dispatcher_from_json(to_json(spec)) == spec


def test_runners_come_back_as_they_were() -> None:
    spec = RunnerSpec("emulated", (X,), (Y,), False, 3, {"a": "b"}, {"8": 1.5}, {"Y": 2.6})
    assert runner_from_json(to_json(spec)) == spec


def test_pipelines_come_back_as_they_were() -> None:
    step = PipelineStep("g.t.g1", {"X": "inputs.X"}, {"Y": "t.Y"})
    spec = PipelineSpec("g", {"X": "inputs.X"}, {"Y": "t.Y"}, (step,), split=True)
    assert pipeline_from_json(to_json(spec)) == spec
