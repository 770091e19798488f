from dataclasses import replace
from typing import Any

import pytest
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.bundle import RouteEntry
from jigsaw_triton.compiler.dispatcher import dispatcher, mode
from jigsaw_triton.compiler.slack import Slack
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import Slo, TaskGraph, TensorType, When
from jigsaw_triton.planner.plan import GraphPlan, TaskPlan
from jigsaw_triton.runtime.spec import Condition, DispatcherSpec, TensorSpec, dispatcher_from_json
from tests.compiler.samples import TEMPLATES
from tests.fakes.graphs import SCALAR, VECTOR, VECTORS, chain, conditional, fan_out, graph, ref, task

ROUTE = (RouteEntry("w0", "m", 8, 2), RouteEntry("w1", "m", 4, 3))


def made(
    of: TaskGraph,
    task_name: str,
    *,
    rows: float = 1.0,
    route: tuple[RouteEntry, ...] = ROUTE,
    service_ms: float = 20.0,
) -> Any:
    """The configuration of a dispatcher at 100 requests a second."""
    plans = {name: TaskPlan(10.0, 100.0 * rows, ()) for name in of.tasks}
    plan = GraphPlan(100.0, 120.0, 1.0, 50.0, plans)
    result = dispatcher(
        of,
        of.tasks[task_name],
        plan,
        route,
        TEMPLATES["dispatcher"],
        slack=Slack(70.0, 30.0),
        service_ms=service_ms,
        generation=2,
        blaming=False,
    )
    assert result.name == f"{of.name}.{task_name}.g2"
    assert result.folder.files["1/model.py"] == b"dispatcher"
    return cfg.of_folder(result.folder)


def spec_of(config: Any) -> DispatcherSpec:
    return dispatcher_from_json(config.parameters["spec"].string_value)


def tensors(items: Any) -> dict[str, tuple[list[int], bool]]:
    return {item.name: (list(item.dims), getattr(item, "allow_ragged_batch", False)) for item in items}


def test_a_chain_is_stacked() -> None:
    config = made(chain(), "t1")
    told = replace(
        spec_of(config), slack_ms=30_000.0, slo_ms=30_000.0, share_ms=30_000.0, full=1, usual_timeout_ms=30_000
    )
    assert told == DispatcherSpec(
        "chain", "t1", "stack", (TensorSpec("X", "FP32", (16,)),), (TensorSpec("Y", "FP32", (16,)),), variants=("v0",)
    )
    assert tensors(config.input) == {"X": ([16], False)}
    assert config.max_batch_size == 64


def test_shapes_that_vary_go_item_by_item() -> None:
    config = made(fan_out(), "detect")
    spec = spec_of(config)
    assert spec.mode == "items"
    assert spec.outputs == (TensorSpec("BOX", "FP32", (16,)), TensorSpec("CROPS", "FP32", (-1, 16)))
    assert tensors(config.output) == {"BOX": ([16], False), "CROPS": ([-1, 16], False)}


def test_rows_that_another_task_goes_through_are_counted_by_variant() -> None:
    detect, classify = (spec_of(made(fan_out(variant_count=2), task)) for task in ("detect", "classify"))
    assert (detect.variants, detect.yields) == (("v0", "v1"), ("CROPS",))
    assert classify.yields == ()


def test_rows_are_seen_with_their_dimension_at_the_gateway_and_without_it_by_a_call() -> None:
    config = made(fan_out(), "classify")
    spec = spec_of(config)
    assert spec.mode == "rows"
    assert spec.inputs == (TensorSpec("CROP", "FP32", (16,), iterated=True),)
    assert spec.outputs == (TensorSpec("LABEL", "INT64", (1,)),)
    assert tensors(config.input) == {"CROP": ([-1, 16], True)}
    assert tensors(config.output) == {"LABEL": ([-1, 1], False)}


def test_a_for_each_task_gets_whole_what_it_does_not_iterate_over() -> None:
    split = task("split", {"X": "inputs.X"}, outputs={"ROWS": VECTORS, "REST": VECTORS})
    each = task("each", {"ROW": "split.ROWS", "REST": "split.REST"}, for_each="split.ROWS")
    of = graph([split, each], {"Y": "each.Y"})
    assert spec_of(made(of, "each")).inputs == (
        TensorSpec("ROW", "FP32", (16,), iterated=True),
        TensorSpec("REST", "FP32", (-1, 16)),
    )


def test_a_condition_comes_as_an_input() -> None:
    config = made(conditional(), "inspect")
    spec = spec_of(config)
    assert (spec.mode, spec.condition) == ("rows", Condition(above=0.5, below=None))
    assert spec.inputs == (TensorSpec("X", "FP32", (16,)),)
    assert tensors(config.input) == {"X": ([16], False), "JIGSAW_WHEN": ([1], False)}
    assert tensors(config.output) == {"Y": ([-1, 16], False)}


def test_an_input_may_not_be_named_like_the_conditions() -> None:
    first = task("first", {"X": "inputs.X"}, outputs={"SCORE": SCALAR})
    second = task("second", {"JIGSAW_WHEN": "inputs.X"}, when=When(ref("first.SCORE"), 0.5, None, 0.5))
    with pytest.raises(InputError, match="no input may be named JIGSAW_WHEN"):
        made(graph([first, second], {"Y": "second.Y"}), "second")


def test_one_instance_a_slot_as_far_as_the_gateway_can_bear_them() -> None:
    (group,) = made(chain(), "t0").instance_group
    assert (group.count, ModelInstanceGroup.Kind.Name(group.kind)) == (5, "KIND_CPU")
    many = tuple(RouteEntry(f"w{i}", "m", 8, 4) for i in range(40))
    assert made(chain(), "t0", route=many).instance_group[0].count == 64


@pytest.mark.parametrize(
    ("of", "task_name", "rows", "preferred"),
    [
        (chain(), "t0", 1.0, 8),  # the largest worker's batch
        (fan_out(), "detect", 1.0, 8),
        (fan_out(), "classify", 3.0, 9),  # 2 x 8 + 3 x 4 rows in a round
        (fan_out(), "classify", 0.1, 64),
        (fan_out(), "classify", 500.0, 1),
        (fan_out(), "classify", 0.0, 64),
    ],
)
def test_an_instance_takes_what_workers_take_at_once(
    of: TaskGraph, task_name: str, rows: float, preferred: int
) -> None:
    assert list(made(of, task_name, rows=rows).dynamic_batching.preferred_batch_size) == [preferred]


def test_batches_may_be_as_large_as_the_largest_worker_takes() -> None:
    config = made(chain(), "t0", route=(RouteEntry("w", "m", 128, 1),))
    assert (config.max_batch_size, list(config.dynamic_batching.preferred_batch_size)) == (128, [128])


@pytest.mark.parametrize(("latency_ms", "timeout_ms"), [(100.0, 30_000), (9000.0, 90_000)])
def test_timeouts_follow_the_slo(latency_ms: float, timeout_ms: int) -> None:
    spec = spec_of(made(replace(chain(), slo=Slo(latency_ms)), "t0"))
    assert (spec.call_timeout_ms, spec.wait_timeout_ms, spec.slo_ms) == (30_000, timeout_ms, latency_ms)


@pytest.mark.parametrize(("service_ms", "usual_ms"), [(20.0, 5_000), (600.0, 12_000), (4000.0, 30_000)])
def test_a_worker_that_has_answered_before_has_less_time(service_ms: float, usual_ms: int) -> None:
    assert spec_of(made(chain(), "t0", service_ms=service_ms)).usual_timeout_ms == usual_ms


def test_the_queue_has_no_policy() -> None:
    config = made(chain(), "t0")
    assert not config.dynamic_batching.HasField("default_queue_policy")
    assert (spec_of(config).slack_ms, spec_of(config).share_ms, spec_of(config).full) == (70.0, 30.0, 8)


def test_all_rows_at_once_vary() -> None:
    gather = task("gather", {"ALL": "classify.LABEL"}, outputs={"Y": VECTOR})
    base = fan_out()
    of = replace(base, tasks={**base.tasks, "gather": gather}, outputs={"Y": ref("gather.Y")})
    assert mode(of, gather) == "items"
    assert spec_of(made(of, "gather")).inputs == (TensorSpec("ALL", "INT64", (-1, 1)),)


def test_bytes_are_strings_to_triton() -> None:
    of = graph([task("t", {"X": "inputs.X"}, outputs={"TEXT": TensorType("BYTES", (1,))})], {"TEXT": "t.TEXT"})
    assert cfg.data_type_name(made(of, "t").output[0].data_type) == "BYTES"
