from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tritonclient.grpc.model_config_pb2 import DataType

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler import ensemble
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.graph.tensors import TensorType
from jigsaw_triton.runtime.spec import CLOCK_TENSOR as CLOCK
from tests.compiler.samples import compiled
from tests.fakes.graphs import SCALAR, VECTOR, chain, conditional, cropping, diamond, fan_out, graph, ref, task


def members(of: TaskGraph) -> tuple[Any, dict[str, Any]]:
    """Returns the configurations of a graph's front and of the models behind it."""
    item = compiled(of, target="ensemble").graphs[of.name]
    return cfg.of_folder(item.front), {model.name: cfg.of_folder(model) for model in item.models}


def test_a_front_has_the_graphs_name_inputs_and_outputs() -> None:
    item = compiled(diamond(), target="ensemble").graphs["diamond"]
    config = cfg.of_folder(item.front)
    assert (item.target, item.pipeline) == ("ensemble", None)
    assert (config.name, config.platform, config.max_batch_size) == ("diamond", "ensemble", 64)
    assert set(item.front.files) == {"config.pbtxt", "1/.keep"}
    steps = [(s.model_name, dict(s.input_map), dict(s.output_map)) for s in config.ensemble_scheduling.step]
    assert steps == [
        ("diamond.a.g3", {"X": "X"}, {"Y": "a.Y", CLOCK: f"a.{CLOCK}"}),
        ("diamond.b.g3", {"X": "a.Y", CLOCK: f"a.{CLOCK}"}, {"Y": "b.Y", CLOCK: f"b.{CLOCK}"}),
        ("diamond.c.g3", {"X": "a.Y", CLOCK: f"a.{CLOCK}"}, {"Y": "c.Y"}),
        ("diamond.d.g3", {"LEFT": "b.Y", "RIGHT": "c.Y", CLOCK: f"b.{CLOCK}"}, {"Y": "Y"}),
    ]


@pytest.mark.parametrize("of", [fan_out(), conditional()], ids=lambda g: g.name)
def test_a_graph_with_rows_takes_one_item_at_a_time(of: TaskGraph) -> None:
    config, _ = members(of)
    assert config.max_batch_size == 1


@pytest.mark.parametrize(
    ("third", "outputs", "within"),
    [
        ("X", {"Y": "three.Y"}, False),
        ("X", {"Y": "two.Y", "Z": "three.Y"}, False),
        ("X", {"MID": "one.Y", "Y": "two.Y", "Z": "three.Y"}, True),
        ("OTHER", {"Y": "two.Y", "Z": "three.Y"}, True),
    ],
    ids=["one output", "only outputs", "an output that a step takes", "an input that the first step does not take"],
)
def test_an_inner_ensemble_keeps_triton_from_skipping_needed_steps(
    third: str, outputs: dict[str, str], within: bool
) -> None:
    tasks = [task("one", {"X": "inputs.X"}), task("two", {"X": "one.Y"}), task("three", {"X": f"inputs.{third}"})]
    of = graph(tasks, outputs, name="g", inputs=dict.fromkeys(["X", third], VECTOR))
    item = compiled(of, target="ensemble").graphs["g"]
    assert item.target == "ensemble"
    steps = [step.model_name for step in cfg.of_folder(item.front).ensemble_scheduling.step]
    own = ["g.one.g3", "g.two.g3", "g.three.g3"]
    if not within:
        assert (item.pipeline, steps) == (None, own)
        return
    assert item.pipeline is not None
    assert steps == [item.pipeline.name] == ["g.pipeline.g3"]
    assert [step.model_name for step in cfg.of_folder(item.pipeline).ensemble_scheduling.step] == own


def test_a_condition_is_an_input_of_the_task_that_it_controls() -> None:
    _, models = members(conditional())
    inspect = models["conditional.pipeline.g3"].ensemble_scheduling.step[1]
    assert dict(inspect.input_map) == {"X": "screen.Y", "JIGSAW_WHEN": "SCORE", CLOCK: f"screen.{CLOCK}"}
    assert dict(inspect.output_map) == {"Y": "REPORT"}


def test_outputs_that_nothing_uses_are_not_mapped() -> None:
    of = graph([task("t", {"X": "inputs.X"}, outputs={"Y": VECTOR, "Z": SCALAR})], {"Y": "t.Y"})
    config, _ = members(of)
    assert dict(config.ensemble_scheduling.step[0].output_map) == {"Y": "Y"}


@pytest.mark.parametrize("of", [chain(3), diamond(), fan_out(), conditional()], ids=lambda g: g.name)
def test_an_ensemble_can_express_common_graphs(of: TaskGraph) -> None:
    assert ensemble.why_not(of) == ()
    assert ensemble.check_ensemble(*members(of)) == ()


def test_a_first_task_passes_the_requests_clock_to_its_followers() -> None:
    tasks = [task("a", {"X": "inputs.X"}), task("b", {"X": "inputs.X"}), task("c", {"LEFT": "b.Y", "RIGHT": "a.Y"})]
    config, _ = members(graph(tasks, {"Y": "c.Y"}))
    clocks = [
        (step.input_map.get(CLOCK, ""), step.output_map.get(CLOCK, "")) for step in config.ensemble_scheduling.step
    ]
    assert clocks == [("", f"a.{CLOCK}"), ("", ""), (f"a.{CLOCK}", "")]


def test_reasons_name_what_an_ensemble_cannot_express() -> None:
    base = chain(2)
    twice = {"ONE": ref("t1.Y"), "TWO": ref("t1.Y")}
    assert ensemble.why_not(replace(base, outputs=twice)) == ("outputs ONE and TWO are the same tensor t1.Y",)
    straight = {"Y": ref("t1.Y"), "SAME": ref("inputs.X")}
    assert ensemble.why_not(replace(base, outputs=straight)) == ("output SAME is the unchanged input X",)
    code = ("crop is a Python step, which may answer the whole request",)
    assert ensemble.why_not(cropping()) == ensemble.why_no_steps(cropping()) == code


def _step(config: Any, index: int) -> Any:
    return config.ensemble_scheduling.step[index]


def _break_batch(config: Any, models: dict[str, Any]) -> None:
    config.max_batch_size = 65


def _break_model(config: Any, models: dict[str, Any]) -> None:
    _step(config, 1).model_name = "gone"


def _break_unmapped(config: Any, models: dict[str, Any]) -> None:
    models["chain.t1.g3"].input.add(name="MORE", data_type=models["chain.t1.g3"].input[0].data_type, dims=[16])


def _break_unknown_input(config: Any, models: dict[str, Any]) -> None:
    _step(config, 1).input_map["Q"] = "t0.Y"


def _break_unknown_output(config: Any, models: dict[str, Any]) -> None:
    _step(config, 1).output_map["Q"] = "more"


def _break_two_makers(config: Any, models: dict[str, Any]) -> None:
    _step(config, 0).output_map["Y"] = "X"


def _break_unused(config: Any, models: dict[str, Any]) -> None:
    _step(config, 1).input_map["X"] = "X"


def _break_unmade(config: Any, models: dict[str, Any]) -> None:
    config.output.add(name="Z", data_type=config.output[0].data_type, dims=[16])


def _break_dtype(config: Any, models: dict[str, Any]) -> None:
    models["chain.t1.g3"].input[0].data_type = DataType.Value("TYPE_STRING")


def _break_dims(config: Any, models: dict[str, Any]) -> None:
    models["chain.t0.g3"].output[0].dims[0] = 17


def _break_rank(config: Any, models: dict[str, Any]) -> None:
    models["chain.t0.g3"].output[0].dims.append(1)


def _break_cycle(config: Any, models: dict[str, Any]) -> None:
    _step(config, 0).input_map["X"] = "Y"
    del config.input[:]


def _break_shared_name(config: Any, models: dict[str, Any]) -> None:
    config.input[0].name = "Y"
    _step(config, 0).input_map["X"] = "Y"


@pytest.mark.parametrize(
    ("damage", "reasons"),
    [
        (_break_batch, ["chain.t0.g3 takes batches of 64, not of 65", "chain.t1.g3 takes batches of 64, not of 65"]),
        (_break_model, ["there is no model gone"]),
        (_break_unmapped, ["input MORE of chain.t1.g3 is not mapped"]),
        (_break_unknown_input, ["chain.t1.g3 has no input Q"]),
        (_break_unknown_output, ["chain.t1.g3 has no output Q"]),
        (_break_two_makers, ["input X and chain.t0.g3.Y both make X"]),
        (_break_unused, ["nothing uses t0.Y"]),
        (_break_unmade, ["nothing makes Z for output Z"]),
        (_break_dtype, ["t0.Y is FP32 from chain.t0.g3.Y but BYTES for chain.t1.g3.X"]),
        (_break_dims, ["t0.Y is [17] from chain.t0.g3.Y but [16] for chain.t1.g3.X"]),
        (_break_rank, ["t0.Y is [16, 1] from chain.t0.g3.Y but [16] for chain.t1.g3.X"]),
        (_break_cycle, ["steps that can never start: chain.t0.g3, chain.t1.g3"]),
        (_break_shared_name, ["Y is both an input and an output", "input Y and chain.t1.g3.Y both make Y"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_each_rule_of_triton_is_checked(damage: Callable[[Any, dict[str, Any]], None], reasons: list[str]) -> None:
    config, models = members(chain(2))
    assert ensemble.check_ensemble(config, models) == ()
    damage(config, models)
    found = ensemble.check_ensemble(config, models)
    assert set(reasons) <= set(found)


def test_a_wildcard_dimension_matches_any_size() -> None:
    config, models = members(chain(2))
    models["chain.t0.g3"].output[0].dims[0] = -1
    assert ensemble.check_ensemble(config, models) == ()


def test_outputs_of_a_for_each_task_have_a_row_dimension() -> None:
    assert ensemble.output_types(fan_out()) == {"BOX": VECTOR, "LABEL": TensorType("INT64", (-1, 1))}
