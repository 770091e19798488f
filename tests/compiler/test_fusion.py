from dataclasses import replace

import pytest

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.fusion import chain_plan, in_chains
from jigsaw_triton.compiler.templates import Template
from jigsaw_triton.graph.chain import Chain
from jigsaw_triton.graph.model import Target, TaskGraph, Variant
from jigsaw_triton.graph.tensors import TensorType
from jigsaw_triton.planner.candidates.chained import chains
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.runtime.spec import pipeline_from_json
from tests.compiler.samples import TEMPLATES, compiled, every, spec_of, spec_text, together
from tests.fakes.graphs import SCALAR, VECTOR, chain, fan_out, graph, nested, ref, step, task

IMAGE = TensorType("UINT8", (-1, -1, 3))
PAIR = Chain(("t0", "t1"), ("v0", "v0"))


def found(of: TaskGraph, planned: Plan | None = None) -> list[tuple[str, ...]]:
    return [chain.tasks for chain in chains(of, planned or together(of))]


def prepared() -> TaskGraph:
    """A graph that resizes images of any size to one size and classifies them."""
    tasks = [
        task("prepare", {"IMAGE": "inputs.IMAGE"}, outputs={"Y": VECTOR}),
        task("classify", {"X": "prepare.Y"}, outputs={"LABEL": SCALAR}),
    ]
    return graph(tasks, {"LABEL": "classify.LABEL"}, inputs={"IMAGE": IMAGE})


def test_a_chain_may_yield_rows_of_rows_but_not_count_or_iterate_over_them() -> None:
    assert found(nested()) == []
    base = nested()
    clean = task("clean", {"LINE": "detect.LINES"}, for_each="detect.LINES")
    counting = replace(base.tasks["split"], inputs={"LINE": ref("clean.Y")}, for_each=ref("clean.Y"))
    split = replace(counting, counts={})
    tasks = {"detect": base.tasks["detect"], "clean": clean, "split": split, "read": base.tasks["read"]}
    of = replace(base, tasks=tasks, outputs={"TEXT": ref("read.TEXT")})
    # The front can count only rows that return to it.
    assert found(replace(of, tasks={**tasks, "split": counting}), together(of)) == []
    assert found(of, together(of, ["detect"], ["clean", "split"], ["read"])) == [("clean", "split")]
    item = compiled(of, together(of, ["detect"], ["clean", "split"], ["read"]))
    whole = spec_of(item.graphs["nested"].front)["tasks"][1]
    assert (whole["name"], whole["mode"]) == ("clean~split", "rows")
    assert [(output["name"], output["yields"]) for output in whole["outputs"]] == [("split.WORDS", True)]
    models = [m for w in item.workers.values() for m in w.models if m.task in ("clean", "split")]
    assert [cfg.of_folder(m.folder).HasField("dynamic_batching") for m in models] == [True, True]


def test_python_steps_come_before_or_after_a_chain() -> None:
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
    assert [task.name for task in item.tasks] == ["app.first.g3", "app.a~b.g3", "app.last.g3"]
    made = spec_of(item.front)["tasks"]
    assert [(task["name"], task["step"]) for task in made] == [("first", True), ("a~b", False), ("last", True)]
    assert [i["tensor"] for i in made[2]["inputs"]] == ["a~b.b.Y"]


def test_a_worker_has_the_chain_beside_its_members_and_the_front_calls_one_task() -> None:
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
    (made,) = item.tasks
    assert (made.name, made.folder) == ("chain.t0~t1~t2.g3", None)
    assert [(e.model, e.batch, e.variant) for e in made.route] == [(whole.name, 2, "v0~v0~v0")]
    assert made.route[0].service_ms == {"1": 33.0, "2": 36.0}
    assert item.apart is not None
    assert item.apart.front.name == item.front.name == "chain"
    assert [task.name for task in item.apart.tasks] == ["chain.t0.g3", "chain.t1.g3", "chain.t2.g3"]
    assert item.apart.tasks[1].route[0].service_ms == {"1": 11.0, "2": 12.0}


def test_a_chain_returns_the_tokens_of_all_members_that_make_one() -> None:
    of = chain(3)
    (whole,) = (model for w in compiled(of, together(of)).workers.values() for model in w.models if model.members)
    steps = [dict(step.output_map) for step in cfg.of_folder(whole.folder).ensemble_scheduling.step]
    assert (whole.tokens, [tensors["JIGSAW_TOKEN"] for tensors in steps]) == (
        3,
        ["JIGSAW_TOKEN.0", "JIGSAW_TOKEN.1", "JIGSAW_TOKEN.2"],
    )


def test_members_on_a_native_backend_make_no_token() -> None:
    base = chain(3)
    native = Variant("v0", 1.0, "native")
    tasks = {name: replace(item, variants=(native,)) for name, item in base.tasks.items() if name != "t1"}
    of = replace(base, tasks={**base.tasks, **tasks})
    templates = {**TEMPLATES, "native": Template("native", 'backend: "onnxruntime"')}
    backends = ("python", "onnxruntime")
    (worker,) = compiled(of, together(of), templates=templates, backends=backends).workers.values()
    assert [model.tokens for model in worker.models] == [0, 1, 0, 1]
    (whole,) = (cfg.of_folder(model.folder) for model in worker.models if model.members)
    assert [dict(step.output_map).get("JIGSAW_TOKEN") for step in whole.ensemble_scheduling.step] == [
        None,
        "JIGSAW_TOKEN",
        None,
    ]


def test_members_of_a_chain_of_items_join_them_to_batches() -> None:
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


def test_a_bls_pipeline_calls_the_chain() -> None:
    of = replace(chain(2), target="bls")
    item = compiled(of, together(of)).graphs["chain"]
    assert item.pipeline is not None
    assert item.apart is not None
    assert item.apart.pipeline is not None
    assert (item.pipeline.name, item.apart.pipeline.name) == ("chain.pipeline.g3", "chain.pipeline.apart.g3")
    spec = pipeline_from_json(spec_text(item.pipeline))
    assert [step.model for step in spec.steps] == ["chain.t0~t1.g3"]


def test_an_unchanged_chain_keeps_its_name_and_one_with_a_changed_member_does_not() -> None:
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


def test_the_content_of_a_chain_depends_on_its_steps_but_neither_on_names_nor_on_the_batch() -> None:
    def content(first: str, second: str, *, batch: int = 4, generation: int = 3) -> str:
        a = task("a", {"X": "inputs.X"}, outputs={"Y": VECTOR, "Z": VECTOR})
        b = task("b", {"P": first, "Q": second})
        of = graph([a, b], {"Y": "b.Y"})
        made = compiled(of, together(of, batches={"a": batch, "b": batch}), generation=generation)
        (whole,) = (model for worker in made.workers.values() for model in worker.models if model.members)
        return whole.content

    assert content("a.Y", "a.Z") == content("a.Y", "a.Z", batch=8, generation=4)
    assert content("a.Y", "a.Z") != content("a.Z", "a.Y")


@pytest.mark.parametrize("target", ["graph", "ensemble", "bls"])
def test_tasks_outside_a_chain_are_part_of_both_forms(target: Target) -> None:
    of = chain(3)
    item = compiled(of, together(of, ["t0", "t1"], ["t2"]), target=target).graphs["chain"]
    assert item.apart is not None
    assert item.tasks[-1] == item.apart.tasks[-1]
    assert list(item.every_task) == ["chain.t0~t1.g3", "chain.t2.g3", "chain.t0.g3", "chain.t1.g3"]


def test_the_budget_of_a_chain_is_the_sum_of_its_tasks() -> None:
    of = chain(3)
    made = chain_plan(together(of).graphs["chain"], [PAIR])
    assert list(made.tasks) == ["t2", "t0~t1"]
    assert made.tasks["t0~t1"].budget_ms == 200.0
    assert made.tasks["t0~t1"].mix == {"v0~v0": 1.0}
    assert in_chains({"t0": 1.0, "t1": 2.0, "t2": 4.0}, [PAIR]) == {"t2": 4.0, "t0~t1": 3.0}


def test_a_chain_yields_the_rows_of_its_last_task() -> None:
    first = task("crop", {"X": "inputs.X"})
    base = fan_out()
    detect = replace(base.tasks["detect"], inputs={"X": ref("crop.Y")})
    of = replace(base, tasks={"crop": first, "detect": detect, "classify": base.tasks["classify"]})
    bundle = compiled(of, together(of, ["crop", "detect"], ["classify"]))
    whole, _ = spec_of(bundle.graphs["fan_out"].front)["tasks"]
    assert (whole["name"], whole["mode"]) == ("crop~detect", "stack")
    assert {o["name"]: o["yields"] for o in whole["outputs"]} == {"detect.BOX": False, "detect.CROPS": True}
