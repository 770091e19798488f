from dataclasses import replace

import pytest

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.fusion import chain_plan, in_chains
from jigsaw_triton.graph.chain import Chain
from jigsaw_triton.graph.model import TaskGraph, TensorType
from jigsaw_triton.planner.chained import chains
from jigsaw_triton.planner.plan import Plan
from jigsaw_triton.runtime.spec import dispatcher_from_json, pipeline_from_json
from tests.compiler.samples import compiled, every, together
from tests.fakes.graphs import SCALAR, VECTOR, chain, fan_out, graph, nested, ref, step, task

IMAGE = TensorType("UINT8", (-1, -1, 3))
PAIR = Chain(("t0", "t1"), ("v0", "v0"))


def found(of: TaskGraph, planned: Plan | None = None) -> list[tuple[str, ...]]:
    return [chain.tasks for chain in chains(of, planned or together(of))]


def prepared() -> TaskGraph:
    """Images of any size, made to tensors of one, classified."""
    tasks = [
        task("prepare", {"IMAGE": "inputs.IMAGE"}, outputs={"Y": VECTOR}),
        task("classify", {"X": "prepare.Y"}, outputs={"LABEL": SCALAR}),
    ]
    return graph(tasks, {"LABEL": "classify.LABEL"}, inputs={"IMAGE": IMAGE})


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
