"""Fronts of whole graphs, and one-task fronts as steps of an ensemble or a BLS pipeline."""

import json
from dataclasses import replace
from typing import Any, Literal

import pytest
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.bundle import RouteEntry, TaskFront
from jigsaw_triton.compiler.front import graph_front, mode, one_by_one, task_front, task_specs
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import Slo, TaskGraph, When
from jigsaw_triton.graph.tensors import TensorType
from jigsaw_triton.runtime.spec import Condition, InputSpec, OutputSpec, TaskSpec
from tests.compiler.samples import TEMPLATES, spec_text
from tests.fakes.graphs import (
    SCALAR,
    VECTOR,
    VECTORS,
    chain,
    conditional,
    cropping,
    fan_out,
    graph,
    nested,
    ref,
    step,
    task,
)
from tests.native.parts import parse_spec

ROUTE = (RouteEntry("w0", "m", 8, 2), RouteEntry("w1", "m", 4, 3))


def whole(of: TaskGraph) -> Any:
    """Returns the configuration of a graph's front."""
    tasks = [TaskFront(f"{node.name}-route", node.name, ()) for node in of.in_order()]
    made = graph_front(of, tasks, TEMPLATES["front"], rest_ms={})
    assert "error" not in parse_spec(spec_text(made))
    return cfg.of_folder(made)


def single(
    of: TaskGraph,
    name: str,
    *,
    route: tuple[RouteEntry, ...] = ROUTE,
    rest_ms: float = 0.0,
    blaming: bool = False,
) -> Any:
    """Returns the configuration of a one-task front."""
    made = task_front(of, of.tasks[name], route, TEMPLATES["front"], rest_ms=rest_ms, generation=2, blaming=blaming)
    assert (made.name, made.task, made.route) == (f"{of.name}.{name}.g2", name, route)
    assert made.folder is not None
    assert set(made.folder.files) == {"config.pbtxt", "1/.keep"}
    assert "error" not in parse_spec(spec_text(made.folder))
    return cfg.of_folder(made.folder)


def spec(config: Any) -> Any:
    return json.loads(config.parameters["spec"].string_value)


def tasks_of(of: TaskGraph) -> dict[str, TaskSpec]:
    """Returns the specifications of the tasks of a graph's front, by name."""
    return {item.name: item for item in task_specs(of, {node.name: node.name for node in of.in_order()}, {})}


def tensors(items: Any) -> dict[str, list[int]]:
    return {item.name: list(item.dims) for item in items}


def test_a_graphs_front_has_its_name_inputs_outputs_and_tasks() -> None:
    config = whole(fan_out())
    assert (config.name, config.backend, config.max_batch_size) == ("fan_out", "jigsaw", 64)
    assert (tensors(config.input), tensors(config.output)) == ({"X": [16]}, {"BOX": [16], "LABEL": [-1, 1]})
    made = spec(config)
    assert [item["name"] for item in made["tasks"]] == ["detect", "classify"]
    assert [item["route"] for item in made["tasks"]] == ["detect-route", "classify-route"]
    assert {item["name"]: item["tensor"] for item in made["outputs"]} == {
        "BOX": "detect.BOX",
        "LABEL": "classify.LABEL",
    }
    assert (made["version"], made["slo_ms"], made["clock"], made["blaming"]) == (2, 1000.0, False, False)


@pytest.mark.parametrize(
    ("of", "split"), [(chain(), False), (fan_out(), True), (conditional(), True), (cropping(), True)]
)
def test_a_front_splits_batches_of_graphs_with_rows_conditions_or_steps(of: TaskGraph, split: bool) -> None:
    assert spec(whole(of))["split"] is split


@pytest.mark.parametrize("overload", ["refuse", "queue"])
def test_fronts_know_the_overload_policy(overload: Literal["refuse", "queue"]) -> None:
    of = replace(chain(), overload=overload)
    assert spec(whole(of))["overload"] == spec(single(of, "t0"))["overload"] == overload


def test_a_front_has_one_instance_and_no_batcher() -> None:
    for config in (whole(chain()), single(chain(), "t0")):
        (group,) = config.instance_group
        assert (group.count, ModelInstanceGroup.Kind.Name(group.kind)) == (1, "KIND_CPU")
        assert not config.HasField("dynamic_batching")


def test_a_one_task_front_passes_on_the_clock() -> None:
    config = single(chain(), "t1", rest_ms=70.0)
    assert tensors(config.input) == {"X": [16], "JIGSAW_CLOCK": [2]}
    assert {i.name: i.optional for i in config.input} == {"X": False, "JIGSAW_CLOCK": True}
    assert tensors(config.output) == {"Y": [16], "JIGSAW_CLOCK": [2]}
    made = spec(config)
    assert (made["clock"], made["split"], made["tasks"][0]["rest_ms"]) == (True, False, 70.0)
    assert [(i["name"], i["tensor"]) for i in made["tasks"][0]["inputs"]] == [("X", "inputs.X")]
    assert made["outputs"][0]["tensor"] == "t1.Y"


def test_a_one_task_front_names_the_tasks_that_follow() -> None:
    assert [spec(single(chain(), name))["tasks"][0]["followers"] for name in ("t0", "t1")] == [["t1"], []]


def test_the_front_of_the_first_task_counts_arrivals() -> None:
    assert [spec(single(chain(), name))["tasks"][0]["entry"] for name in ("t0", "t1")] == [True, False]


def test_fronts_of_a_pipeline_name_the_party_that_a_failure_blames() -> None:
    assert [spec(single(chain(), "t0", blaming=blaming))["blaming"] for blaming in (True, False)] == [True, False]


def test_tasks_with_fixed_shapes_are_stacked() -> None:
    assert tasks_of(chain())["t1"] == TaskSpec(
        name="t1",
        route="t1",
        mode="stack",
        inputs=(InputSpec("X", "FP32", (16,), "t0.Y"),),
        outputs=(OutputSpec("Y", "FP32", (16,)),),
        deadline_ms=10_000.0,
        variants=("v0",),
    )


def test_tasks_with_varying_shapes_are_called_item_by_item() -> None:
    image = TensorType("UINT8", (-1, -1, 3))
    of = graph([task("t", {"X": "inputs.X"})], {"Y": "t.Y"}, inputs={"X": image})
    assert tasks_of(of)["t"].mode == "items"
    of = graph([task("t", {"X": "inputs.X"}, outputs={"Y": VECTORS})], {"Y": "t.Y"})
    assert tasks_of(of)["t"].mode == "items"


def test_the_number_of_rows_does_not_count_as_part_of_the_shape() -> None:
    detect = tasks_of(fan_out())["detect"]
    assert detect.mode == "stack"
    assert detect.outputs == (OutputSpec("BOX", "FP32", (16,)), OutputSpec("CROPS", "FP32", (-1, 16), yields=True))


def test_rows_have_a_dimension_at_the_gateway_and_none_in_a_call() -> None:
    classify = tasks_of(fan_out())["classify"]
    assert (classify.mode, classify.inputs) == ("rows", (InputSpec("CROP", "FP32", (16,), "detect.CROPS", True),))
    assert classify.outputs == (OutputSpec("LABEL", "INT64", (1,)),)
    config = single(fan_out(), "classify")
    assert tensors(config.input) == {"CROP": [-1, 16], "JIGSAW_CLOCK": [2]}
    assert tensors(config.output) == {"LABEL": [-1, 1], "JIGSAW_CLOCK": [2]}
    (item,) = spec(config)["tasks"][0]["inputs"]
    assert (item["tensor"], item["shape"], item["iterated"]) == ("inputs.CROP", [16], True)


def test_a_for_each_task_receives_other_inputs_whole() -> None:
    split = task("split", {"X": "inputs.X"}, outputs={"ROWS": VECTORS, "REST": VECTORS})
    each = task("each", {"ROW": "split.ROWS", "REST": "split.REST"}, for_each="split.ROWS")
    of = graph([split, each], {"Y": "each.Y"})
    assert tasks_of(of)["each"].inputs == (
        InputSpec("ROW", "FP32", (16,), "split.ROWS", iterated=True),
        InputSpec("REST", "FP32", (-1, 16), "split.REST"),
    )


def test_a_condition_is_a_tensor_of_the_graph_or_an_input_of_a_one_task_front() -> None:
    inspect = tasks_of(conditional())["inspect"]
    assert (inspect.mode, inspect.condition) == ("rows", Condition("screen.SCORE", above=0.5, below=None))
    assert [item.name for item in inspect.inputs] == ["X"]
    config = single(conditional(), "inspect")
    assert tensors(config.input) == {"X": [16], "JIGSAW_WHEN": [1], "JIGSAW_CLOCK": [2]}
    assert tensors(config.output) == {"Y": [-1, 16], "JIGSAW_CLOCK": [2]}
    assert spec(config)["tasks"][0]["condition"] == {"tensor": "inputs.JIGSAW_WHEN", "above": 0.5, "below": None}


def test_a_condition_on_a_tensor_that_the_task_takes_too() -> None:
    first = task("first", {"X": "inputs.X"}, outputs={"SCORE": SCALAR})
    second = task("second", {"S": "first.SCORE"}, when=When(ref("first.SCORE"), 0.5, None, 0.5))
    made = spec(single(graph([first, second], {"Y": "second.Y"}), "second"))["tasks"][0]
    assert [item["tensor"] for item in made["inputs"]] == ["inputs.S"]
    assert made["condition"]["tensor"] == "inputs.JIGSAW_WHEN"


@pytest.mark.parametrize("name", ["JIGSAW_WHEN", "JIGSAW_CLOCK"])
def test_an_input_with_a_reserved_name_is_refused(name: str) -> None:
    first = task("first", {"X": "inputs.X"}, outputs={"SCORE": SCALAR})
    second = task("second", {name: "inputs.X"}, when=When(ref("first.SCORE"), 0.5, None, 0.5))
    with pytest.raises(InputError, match=f"no input may be named {name}"):
        single(graph([first, second], {"Y": "second.Y"}), "second")


def test_the_front_counts_rows_of_rows() -> None:
    split = tasks_of(nested())["split"]
    assert split.counts == {"PER_LINE": "WORDS"}
    assert {item.name: item.yields for item in split.outputs} == {"WORDS": True, "KIND": False}
    config = single(nested(), "split")
    assert tensors(config.output) == {"WORDS": [-1, 16], "KIND": [-1, 1], "PER_LINE": [-1, 1], "JIGSAW_CLOCK": [2]}


def test_a_counted_output_is_requested_even_if_nothing_uses_its_rows() -> None:
    detect = task("detect", {"X": "inputs.X"}, outputs={"R": VECTORS, "Z": VECTOR}, counts={"N": "R"})
    of = graph([detect], {"N": "detect.N"})
    made = tasks_of(of)["detect"]
    assert ([item.name for item in made.outputs], made.counts) == (["R"], {"N": "R"})
    assert tensors(single(of, "detect").output) == {"N": [1], "JIGSAW_CLOCK": [2]}


def test_unused_outputs_are_not_requested() -> None:
    of = graph([task("t", {"X": "inputs.X"}, outputs={"Y": VECTOR, "Z": SCALAR})], {"Y": "t.Y"})
    assert [item.name for item in tasks_of(of)["t"].outputs] == ["Y"]
    assert tensors(single(of, "t").output) == {"Y": [16], "JIGSAW_CLOCK": [2]}


def test_a_python_step_is_called_item_by_item() -> None:
    assert tasks_of(cropping())["crop"] == TaskSpec(
        name="crop",
        route="crop",
        mode="items",
        inputs=(InputSpec("X", "FP32", (16,), "inputs.X"), InputSpec("BOXES", "FP32", (-1, 16), "detect.BOXES")),
        outputs=(OutputSpec("CROPS", "FP32", (-1, 16), yields=True),),
        deadline_ms=10_000.0,
        step=True,
    )


def test_a_step_receives_all_rows_at_once() -> None:
    of = graph(
        [fan_out().tasks["detect"], fan_out().tasks["classify"]],
        {"Y": "sort.Y"},
        steps=[step("sort", {"LABELS": "classify.LABEL"}, "")],
    )
    assert tasks_of(of)["sort"].inputs == (InputSpec("LABELS", "INT64", (-1, 1), "classify.LABEL"),)


def test_tasks_and_steps_keep_their_retry_setting() -> None:
    base = cropping()
    of = replace(
        base,
        tasks={name: replace(item, retry=name == "classify") for name, item in base.tasks.items()},
        steps={name: replace(item, retry=False) for name, item in base.steps.items()},
    )
    assert {name: item.retry for name, item in tasks_of(of).items()} == {
        "detect": False,
        "crop": False,
        "classify": True,
    }


@pytest.mark.parametrize(("latency_ms", "deadline_ms"), [(100.0, 10_000.0), (60_000.0, 60_000.0)])
def test_the_deadline_of_a_call_is_at_least_the_slo(latency_ms: float, deadline_ms: float) -> None:
    of = replace(cropping(), slo=Slo(latency_ms))
    assert {item.deadline_ms for item in tasks_of(of).values()} == {deadline_ms}


def test_batches_may_be_as_large_as_the_largest_worker_allows() -> None:
    assert single(chain(), "t0", route=(RouteEntry("w", "m", 128, 1),)).max_batch_size == 128


def test_a_task_that_receives_all_rows_is_called_item_by_item() -> None:
    gather = task("gather", {"ALL": "classify.LABEL"}, outputs={"Y": VECTOR})
    base = fan_out()
    of = replace(base, tasks={**base.tasks, "gather": gather}, outputs={"Y": ref("gather.Y")})
    assert mode(of, gather) == "items"
    assert tasks_of(of)["gather"].inputs == (InputSpec("ALL", "INT64", (-1, 1), "classify.LABEL"),)


def test_tasks_that_yield_rows_are_called_one_by_one() -> None:
    of = nested()
    assert {name: one_by_one(of, item) for name, item in of.tasks.items()} == {
        "detect": True,
        "split": True,
        "read": False,
    }


def test_bytes_are_strings_to_triton() -> None:
    of = graph([task("t", {"X": "inputs.X"}, outputs={"TEXT": TensorType("BYTES", (1,))})], {"TEXT": "t.TEXT"})
    assert cfg.data_type_name(whole(of).output[0].data_type) == "BYTES"
