"""Steps workers: Python steps as models on the host's CPU."""

from dataclasses import replace

import pytest

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.bundle import RouteEntry, Worker
from jigsaw_triton.compiler.steps import steps_worker
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import Target, TaskGraph
from jigsaw_triton.runtime.spec import StepSpec, TensorSpec, step_from_json
from tests.compiler.samples import TEMPLATES, compiled, spec_text
from tests.fakes.graphs import CROP, chain, cropping, fan_out, graph, step, task


def made(of: TaskGraph, *, demand_rps: float = 100.0, generation: int = 3) -> Worker:
    return steps_worker(of, TEMPLATES["step"], demand_rps=demand_rps, generation=generation)


def test_a_graph_with_steps_has_a_steps_worker() -> None:
    bundle = compiled(cropping())
    worker = bundle.workers["steps-cropping"]
    assert (worker.place, worker.memory_mib, worker.process) == (None, None, 0)
    (model,) = worker.models
    assert (model.name, model.graph, model.task) == ("cropping.crop.step.g3", "cropping", "crop")
    assert (model.variant, model.batch, model.tokens) == ("", 1, 1)
    assert bundle.graphs["cropping"].tasks[1].route == (
        RouteEntry("steps-cropping", "cropping.crop.step.g3", 1, 1, tokens=1, generations=(3,)),
    )
    assert "steps-chain" not in compiled(chain()).workers


def test_a_step_takes_one_request_at_a_time_and_may_answer_it() -> None:
    (model,) = made(cropping()).models
    config = cfg.of_folder(model.folder)
    assert (config.backend, config.max_batch_size) == ("python", 1)
    assert {i.name: list(i.dims) for i in config.input} == {"X": [16], "BOXES": [-1, 16]}
    assert {o.name: list(o.dims) for o in config.output} == {
        "CROPS": [-1, 16],
        "JIGSAW_ANSWER.LABEL": [-1, 1],
        "JIGSAW_ANSWERED": [1],
        "JIGSAW_TOKEN": [1],
    }
    assert model.folder.files["1/model.py"] == b"step"
    assert model.folder.files["1/step.py"] == CROP.encode()
    assert step_from_json(spec_text(model.folder)) == StepSpec(
        name="crop",
        file="steps/crop.py",
        inputs=(TensorSpec("X", "FP32", (16,)), TensorSpec("BOXES", "FP32", (-1, 16))),
        outputs=(TensorSpec("CROPS", "FP32", (-1, 16)),),
        answers=(TensorSpec("LABEL", "INT64", (-1, 1)),),
    )


@pytest.mark.parametrize(("demand_rps", "instances"), [(0.0, 1), (100.0, 1), (101.0, 2), (10_000.0, 8)])
def test_a_step_has_enough_processes_for_the_demand(demand_rps: float, instances: int) -> None:
    (model,) = made(cropping(latency_ms=5.0), demand_rps=demand_rps).models
    assert model.instances == cfg.of_folder(model.folder).instance_group[0].count == instances


def test_unchanged_code_keeps_its_model() -> None:
    of = graph(
        [task("t", {"X": "b.Y"})],
        {"Y": "t.Y"},
        steps=[step("a", {"X": "inputs.X"}, "one"), step("b", {"X": "a.Y"}, "two")],
    )
    first = compiled(of)
    changed = replace(of, steps={**of.steps, "b": replace(of.steps["b"], source="three")})
    second = compiled(changed, generation=4, running=first)
    assert [model.name for model in second.workers["steps-app"].models] == ["app.a.step.g3", "app.b.step.g4"]
    assert [task.name for task in second.graphs["app"].tasks] == ["app.a.g4", "app.b.g4", "app.t.g4"]
    assert [task.route[0].model for task in second.graphs["app"].tasks[:2]] == ["app.a.step.g3", "app.b.step.g4"]


@pytest.mark.parametrize(
    ("target", "kind"), [("ensemble", "an ensemble"), ("bls", "a BLS pipeline")], ids=["ensemble", "bls"]
)
def test_steps_need_target_graph(target: Target, kind: str) -> None:
    with pytest.raises(InputError, match=f"cropping: {kind} cannot express the graph: crop is a Python step") as caught:
        compiled(cropping(), target=target)
    assert caught.value.hint == "set `target: graph` or leave `target` out"


def test_a_step_receives_all_rows_at_once() -> None:
    base = fan_out()
    sort = step("sort", {"LABELS": "classify.LABEL"}, "")
    of = graph(list(base.tasks.values()), {"Y": "sort.Y"}, steps=[sort])
    (model,) = made(of).models
    assert [list(i.dims) for i in cfg.of_folder(model.folder).input] == [[-1, 1]]
