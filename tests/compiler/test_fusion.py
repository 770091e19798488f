from dataclasses import replace

import pytest

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.fusion import chain_plan, chains, in_chains
from jigsaw_triton.graph.chain import Chain
from jigsaw_triton.graph.model import TaskGraph, TensorType, When
from jigsaw_triton.planner.plan import PlacedModel, Plan
from jigsaw_triton.runtime.spec import dispatcher_from_json, pipeline_from_json
from tests.compiler.samples import compiled, every, plan, together
from tests.fakes.graphs import SCALAR, VECTOR, chain, conditional, diamond, fan_out, graph, nested, ref, step, task

IMAGE, ROW = TensorType("UINT8", (-1, -1, 3)), TensorType("FP32", (4,))
LOOSE_VECTOR = TensorType("FP32", (-1,))
PAIR = Chain(("t0", "t1"), ("v0", "v0"))


def found(of: TaskGraph, planned: Plan | None = None) -> list[tuple[str, ...]]:
    return [chain.tasks for chain in chains(of, planned or together(of))]


def over_rows() -> TaskGraph:
    """detect -> (for each of CROPS) classify -> name, which goes on with the same rows."""
    more = task("name", {"LABEL": "classify.LABEL"}, for_each="classify.LABEL")
    base = fan_out()
    return replace(base, tasks={**base.tasks, "name": more}, outputs={"NAMES": ref("name.Y")})


def prepared(between: TensorType = VECTOR) -> TaskGraph:
    """Images of any size, made to tensors of one, classified."""
    tasks = [
        task("prepare", {"IMAGE": "inputs.IMAGE"}, outputs={"Y": between}),
        task("classify", {"X": "prepare.Y"}, outputs={"LABEL": SCALAR}),
    ]
    return graph(tasks, {"LABEL": "classify.LABEL"}, inputs={"IMAGE": IMAGE})


def test_the_longest_chain_in_a_slice_is_found() -> None:
    assert found(chain(3)) == [("t0", "t1", "t2")]
    assert found(chain(3), together(chain(3), ["t0", "t1"], ["t2"])) == [("t0", "t1")]
    assert found(chain(4), together(chain(4), ["t0", "t1"], ["t2", "t3"])) == [("t0", "t1"), ("t2", "t3")]
    assert found(chain(3), every(chain(3))) == []


def test_a_chain_may_be_on_several_slices_if_all_hold_all_of_it() -> None:
    of = chain(2)
    assert found(of, together(of, ["t0", "t1"], ["t1", "t0"])) == [("t0", "t1")]
    assert found(of, together(of, ["t0", "t1"], ["t1"])) == []
    assert found(of, together(of, ["t0", "t1"], ["t0"])) == []


def test_one_variant_does_each_of_its_tasks() -> None:
    of = chain(2, variant_count=2)
    first = PlacedModel("chain", "t0", "v0", 1, 4)
    same, other = PlacedModel("chain", "t1", "v0", 1, 4), PlacedModel("chain", "t1", "v1", 1, 4)
    assert chains(of, plan([of], {(0, 0, "1g"): [first, other]})) == (Chain(("t0", "t1"), ("v0", "v1")),)
    assert chains(of, plan([of], {(0, 0, "1g"): [first, same, other]})) == ()
    assert chains(of, plan([of], {(0, 0, "1g"): [first, same], (0, 1, "1g"): [first, other]})) == ()


def test_what_goes_to_several_tasks_or_comes_from_several_is_no_chain() -> None:
    assert found(diamond()) == []


def test_what_is_there_before_a_chain_begins_may_be_needed_in_it() -> None:
    tasks = [
        task("a", {"X": "inputs.X"}),
        task("b", {"X": "a.Y"}),
        task("c", {"X": "b.Y", "A": "a.Y", "IN": "inputs.X"}),
    ]
    # What a makes goes to both others, which are a chain behind it.
    assert found(graph(tasks, {"Y": "c.Y"})) == [("b", "c")]


def test_what_is_not_there_when_it_begins_would_be_waited_for() -> None:
    tasks = [
        task("a", {"X": "inputs.X"}),
        task("b", {"X": "inputs.X"}),
        task("c", {"A": "a.Y", "B": "b.Y"}),
        task("d", {"C": "c.Y"}),
    ]
    assert found(graph(tasks, {"Y": "d.Y"})) == [("c", "d")]


def test_rows_neither_begin_nor_end_in_a_chain() -> None:
    assert found(fan_out()) == []
    assert found(over_rows()) == [("classify", "name")]
    gathered = over_rows()
    whole = replace(gathered.tasks["name"], for_each=None, inputs={"LABELS": ref("classify.LABEL")})
    assert found(replace(gathered, tasks={**gathered.tasks, "name": whole})) == []


def test_rows_of_rows_neither_begin_nor_end_in_a_chain_but_may_come_of_it() -> None:
    assert found(nested()) == []
    base = nested()
    clean = task("clean", {"LINE": "detect.LINES"}, for_each="detect.LINES")
    counting = replace(base.tasks["split"], inputs={"LINE": ref("clean.Y")}, for_each=ref("clean.Y"))
    split = replace(counting, counts={})
    tasks = {"detect": base.tasks["detect"], "clean": clean, "split": split, "read": base.tasks["read"]}
    of = replace(base, tasks=tasks, outputs={"TEXT": ref("read.TEXT")})
    # A dispatcher counts what comes back to it.
    assert found(replace(of, tasks={**tasks, "split": counting}), together(of)) == []
    assert found(of, together(of, ["detect"], ["clean", "split"], ["read"])) == [("clean", "split")]
    item = compiled(of, together(of, ["detect"], ["clean", "split"], ["read"]))
    whole = item.graphs["nested"].dispatchers[1]
    spec = dispatcher_from_json(cfg.of_folder(whole.folder).parameters["spec"].string_value)
    assert (spec.task, spec.mode, spec.yields, spec.one_by_one) == ("clean~split", "rows", ("split.WORDS",), True)
    models = [m for w in item.workers.values() for m in w.models if m.task in ("clean", "split")]
    assert [cfg.of_folder(m.folder).HasField("dynamic_batching") for m in models] == [True, True]


def test_batches_of_rows_are_of_one_size() -> None:
    of = over_rows()
    assert found(of, together(of, batches={"classify": 8})) == []
    assert found(chain(2), together(chain(2), batches={"t0": 8})) == [("t0", "t1")]


def test_nothing_in_a_chain_is_conditional() -> None:
    assert found(conditional()) == []
    late = chain(3)
    held = replace(late.tasks["t1"], when=When(ref("inputs.X"), 0.5, None, 0.5))
    assert found(replace(late, tasks={**late.tasks, "t1": held})) == []


def test_python_steps_come_before_a_chain_or_behind_it() -> None:
    between = graph(
        [task("a", {"X": "inputs.X"}), task("b", {"X": "sort.Y"})],
        {"Y": "b.Y"},
        steps=[step("sort", {"X": "a.Y"}, "")],
    )
    assert found(between) == []
    beside = graph(
        [task("a", {"X": "inputs.X"}), task("b", {"X": "a.Y"})],
        {"B": "b.Y", "S": "sort.Y"},
        steps=[step("sort", {"X": "a.Y"}, "")],
    )
    assert found(beside) == []
    waited = graph(
        [task("a", {"X": "inputs.X"}), task("b", {"X": "a.Y", "S": "sort.Y"})],
        {"B": "b.Y"},
        steps=[step("sort", {"X": "inputs.X"}, "")],
    )
    assert found(waited) == []
    around = graph(
        [task("a", {"X": "first.Y"}), task("b", {"X": "a.Y", "S": "first.Y"})],
        {"S": "last.Y"},
        steps=[step("first", {"X": "inputs.X"}, ""), step("last", {"X": "b.Y"}, "")],
    )
    assert found(around) == [("a", "b")]
    item = compiled(around, together(around)).graphs["app"]
    assert item.pipeline is not None
    spec = pipeline_from_json(cfg.of_folder(item.pipeline).parameters["spec"].string_value)
    assert [step.model for step in spec.steps] == ["first", "app.a~b.g3", "last"]


def test_shapes_that_vary_are_seen_from_outside() -> None:
    assert found(prepared()) == [("prepare", "classify")]
    assert found(prepared(LOOSE_VECTOR)) == [("prepare", "classify")]
    inside = replace(prepared(LOOSE_VECTOR), inputs={"IMAGE": graph([], {}, inputs={"IMAGE": VECTOR}).inputs["IMAGE"]})
    assert found(inside) == []


def test_a_worker_has_the_chain_beside_its_models_and_the_gateway_one_dispatcher() -> None:
    of = chain(3)
    bundle = compiled(of, together(of, ["t0", "t1", "t2"], batches={"t1": 2}))
    (worker,) = bundle.workers.values()
    assert [m.name for m in worker.models] == [
        "chain.t0.v0.g3",
        "chain.t1.v0.g3",
        "chain.t2.v0.g3",
        "chain.t0~t1~t2.v0~v0~v0.g3",
    ]
    whole = worker.models[-1]
    assert whole.members == ("chain.t0.v0.g3", "chain.t1.v0.g3", "chain.t2.v0.g3")
    assert whole.batch == cfg.of_folder(whole.folder).max_batch_size == 2
    item = bundle.graphs["chain"]
    (dispatcher,) = item.dispatchers
    assert dispatcher.name == "chain.t0~t1~t2.g3"
    assert [(e.model, e.batch, e.variant) for e in dispatcher.route] == [(whole.name, 2, "v0~v0~v0")]
    assert item.apart is not None
    assert [d.name for d in item.apart.dispatchers] == ["chain.t0.g3", "chain.t1.g3", "chain.t2.g3"]
    spec = dispatcher_from_json(cfg.of_folder(dispatcher.folder).parameters["spec"].string_value)
    # 300 ms are the budgets of all three, 15 ms, 13 ms and 15 ms the batches of four, two and four.
    assert spec.share_ms == pytest.approx(300 - 15 - 13 - 15)


def test_its_models_join_what_comes_item_by_item() -> None:
    of = prepared()
    alone, whole = (compiled(of, planned) for planned in (every(of, instances=1), together(of)))
    batches = {
        m.task: cfg.of_folder(m.folder).HasField("dynamic_batching")
        for bundle in (alone, whole)
        for w in bundle.workers.values()
        for m in w.models
        if not m.members
    }
    assert batches == {"prepare": True, "classify": True}
    (apart,) = [m for m in alone.workers["n-0-1g-1"].models if m.task == "classify"]
    assert not cfg.of_folder(apart.folder).HasField("dynamic_batching")


def test_a_bls_graph_calls_the_chain_too() -> None:
    of = replace(chain(2), target="bls")
    item = compiled(of, together(of)).graphs["chain"]
    assert item.pipeline is not None
    assert item.apart is not None
    assert item.apart.pipeline is not None
    assert (item.pipeline.name, item.apart.pipeline.name) == ("chain.pipeline.g3", "chain.pipeline.apart.g3")


def test_a_chain_that_stays_keeps_its_name_and_one_with_another_member_does_not() -> None:
    of = chain(2)
    first = compiled(of, together(of))
    second = compiled(of, together(of), generation=4, running=first)
    assert second.workers == first.workers
    third = compiled(of, together(of, batches={"t1": 8}), generation=5, running=second)
    assert [m.name for m in third.workers["n-0-1g-0"].models] == [
        "chain.t0.v0.g3",
        "chain.t1.v0.g5",
        "chain.t0~t1.v0~v0.g5",
    ]


def test_dispatchers_of_tasks_beside_a_chain_are_part_of_both_forms() -> None:
    of = chain(3)
    item = compiled(of, together(of, ["t0", "t1"], ["t2"])).graphs["chain"]
    assert item.apart is not None
    assert item.dispatchers[-1] is item.apart.dispatchers[-1]
    assert list(item.every_dispatcher) == ["chain.t0~t1.g3", "chain.t2.g3", "chain.t0.g3", "chain.t1.g3"]


def test_a_plan_gives_a_chain_what_it_gives_its_tasks() -> None:
    of = chain(3)
    made = chain_plan(together(of).graphs["chain"], [PAIR])
    assert list(made.tasks) == ["t2", "t0~t1"]
    assert made.tasks["t0~t1"].budget_ms == 200.0
    assert made.tasks["t0~t1"].mix == {"v0~v0": 1.0}
    assert in_chains({"t0": 1.0, "t1": 2.0, "t2": 4.0}, [PAIR]) == {"t2": 4.0, "t0~t1": 3.0}


def test_rows_that_a_chain_yields_are_those_of_its_last_task() -> None:
    first = task("crop", {"X": "inputs.X"})
    base = fan_out()
    detect = replace(base.tasks["detect"], inputs={"X": ref("crop.Y")})
    of = replace(base, tasks={"crop": first, "detect": detect, "classify": base.tasks["classify"]})
    bundle = compiled(of, together(of, ["crop", "detect"], ["classify"]))
    whole, _ = bundle.graphs["fan_out"].dispatchers
    spec = dispatcher_from_json(cfg.of_folder(whole.folder).parameters["spec"].string_value)
    assert (spec.task, spec.mode, spec.yields) == ("crop~detect", "items", ("detect.CROPS",))
    assert {output.name for output in spec.outputs} == {"detect.BOX", "detect.CROPS"}
