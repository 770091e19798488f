from collections.abc import Callable
from dataclasses import replace

import pytest

from jigsaw_triton.compiler.bundle import Place
from jigsaw_triton.compiler.compile import compile_plan
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, Placement
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, Plan
from tests.compiler.samples import TEMPLATES, cluster, compiled, every, identity, plan, profile
from tests.fakes.graphs import chain, cropping, graph, ref, task


def test_each_slice_has_a_worker_with_its_models() -> None:
    bundle = compiled(chain(2))
    assert bundle.generation == 3
    assert list(bundle.workers) == ["n-0-1g-0", "n-0-1g-1"]
    worker = bundle.workers["n-0-1g-1"]
    assert worker.place == Place(GpuId("n", 0), "A100-80GB", Placement(1, "1g"))
    assert worker.memory_mib == 9728
    (model,) = worker.models
    assert (model.name, model.graph, model.task, model.variant) == ("chain.t1.v0.g3", "chain", "t1", "v0")
    assert (model.instances, model.batch) == (2, 4)


def test_tasks_and_steps_are_in_topological_order() -> None:
    tasks = compiled(cropping()).graphs["cropping"].tasks
    assert [task.task for task in tasks] == ["detect", "crop", "classify"]
    assert [task.name for task in tasks] == ["cropping.detect.g3", "cropping.crop.g3", "cropping.classify.g3"]


def test_an_empty_slice_has_no_worker() -> None:
    of = chain(1)
    placed = {(0, 0, "1g"): [PlacedModel("chain", "t0", "v0", 1, 1)], (0, 1, "1g"): []}
    assert list(compiled(of, plan([of], placed)).workers) == ["n-0-1g-0"]


def test_several_graphs_share_gpus_and_slices() -> None:
    one, two = chain(1, name="one"), chain(1, name="two")
    models = [PlacedModel(name, "t0", "v0", 1, 1) for name in ("two", "one")]
    bundle = compile_plan(
        plan([two, one], {(0, 0, "1g"): models}),
        {"two": two, "one": one},
        cluster(),
        {g.name: profile(g) for g in (one, two)},
        generation=1,
        templates=TEMPLATES,
        backends=frozenset({"python"}),
        identity=identity,
    )
    assert list(bundle.graphs) == ["one", "two"]
    (worker,) = bundle.workers.values()
    assert [m.name for m in worker.models] == ["one.t0.v0.g1", "two.t0.v0.g1"]
    content = worker.models[0].folder.files["config.pbtxt"]
    assert isinstance(content, bytes)
    assert b"rate_limiter" in content


def test_unchanged_models_keep_their_names() -> None:
    of = chain(2)
    first = compiled(of)
    placed = {
        (0, 0, "1g"): [PlacedModel("chain", "t0", "v0", 2, 4)],
        (0, 1, "1g"): [PlacedModel("chain", "t1", "v0", 2, 8)],
        (0, 2, "1g"): [PlacedModel("chain", "t1", "v0", 2, 4)],
    }
    second = compiled(of, plan([of], placed), generation=4, running=first)
    assert second.workers["n-0-1g-0"] == first.workers["n-0-1g-0"]
    assert [m.name for m in second.workers["n-0-1g-1"].models] == ["chain.t1.v0.g4"]
    assert [m.name for m in second.workers["n-0-1g-2"].models] == ["chain.t1.v0.g4"]
    first_task, second_task = second.graphs["chain"].tasks
    assert (first_task.name, second_task.name) == ("chain.t0.g4", "chain.t1.g4")
    assert [e.model for e in first_task.route] == ["chain.t0.v0.g3"]

    third = compiled(of, plan([of], placed), generation=5, running=second)
    assert third.workers == second.workers


def test_variants_with_equal_digests_keep_their_own_names() -> None:
    of = chain(1, variant_count=2)
    placed = {(0, 0, "1g"): [PlacedModel("chain", "t0", name, 1, 1) for name in ("v0", "v1")]}
    first = compiled(of, plan([of], placed))
    one, two = first.workers["n-0-1g-0"].models
    assert one.digest == two.digest
    assert compiled(of, plan([of], placed), generation=4, running=first).workers == first.workers


def test_a_generation_that_does_not_increase_is_refused() -> None:
    running = compiled(chain(), generation=3)
    with pytest.raises(ValueError, match="generation 3 does not follow 3"):
        compiled(chain(), generation=3, running=running)


def test_only_models_on_real_gpus_use_the_gpu() -> None:
    def kinds(driver: str, board: str) -> str:
        variant = replace(chain(1).tasks["t0"].variants[0], template="python")
        of = replace(chain(1), tasks={"t0": replace(chain(1).tasks["t0"], variants=(variant,))})
        bundle = compile_plan(
            plan([of], {(0, 0, "1g"): [PlacedModel("chain", "t0", "v0", 1, 1)]}, board=board),
            {"chain": of},
            Cluster((Gpu(GpuId("n", 0), CATALOG[board]),), driver="nvml" if driver == "nvml" else "emulated"),
            {},
            generation=1,
            templates=TEMPLATES,
            backends=frozenset({"python"}),
            identity=identity,
        )
        content = bundle.workers["n-0-1g-0"].models[0].folder.files["config.pbtxt"]
        assert isinstance(content, bytes)
        return "GPU" if b"KIND_GPU" in content else "CPU"

    assert kinds("nvml", "A100-80GB") == "GPU"
    assert kinds("emulated", "A100-80GB") == "CPU"
    assert kinds("nvml", "cpu") == "CPU"


def other_board(of: Plan) -> Plan:
    return replace(of, gpus=(replace(of.gpus[0], model="H100-80GB"),))


def other_gpu(of: Plan) -> Plan:
    return replace(of, gpus=(replace(of.gpus[0], id=GpuId("n", 9)),))


def other_slice(of: Plan) -> Plan:
    first, *rest = of.gpus[0].layout
    layout = (PlacedSlice(Placement(0, "5g"), first.models), *rest)
    return replace(of, gpus=(replace(of.gpus[0], layout=layout),))


def other_start(of: Plan) -> Plan:
    first, *rest = of.gpus[0].layout
    layout = (PlacedSlice(Placement(7, first.placement.slice), first.models), *rest)
    return replace(of, gpus=(replace(of.gpus[0], layout=layout),))


def other_models(*models: PlacedModel) -> Callable[[Plan], Plan]:
    def change(of: Plan) -> Plan:
        first, *rest = of.gpus[0].layout
        return replace(of, gpus=(replace(of.gpus[0], layout=(replace(first, models=models), *rest)),))

    return change


def other_graph(of: Plan) -> Plan:
    return replace(of, graphs={"old": of.graphs["chain"]})


def other_tasks(of: Plan) -> Plan:
    tasks = {"old": of.graphs["chain"].tasks["t0"], "t1": of.graphs["chain"].tasks["t1"]}
    return replace(of, graphs={"chain": replace(of.graphs["chain"], tasks=tasks)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_board, "GPU n/0: the cluster has no H100-80GB at this index; plan again"),
        (other_gpu, "GPU n/9: the cluster has no A100-80GB at this index; plan again"),
        (other_slice, "GPU n/0: A100-80GB has no slice 5g (it has 1g, 1gx2, 2g, 3g, 4g, 7g); plan again"),
        (other_start, "GPU n/0: 1g of A100-80GB cannot start at 7 (only at 0, 1, 2, 3, 4, 5, 6); plan again"),
        (other_models(PlacedModel("old", "t0", "v0", 1, 1)), "GPU n/0, 1g@0: there is no task old.t0; plan again"),
        (other_models(PlacedModel("chain", "old", "v0", 1, 1)), "GPU n/0, 1g@0: there is no task chain.old; plan"),
        (other_models(PlacedModel("chain", "t0", "v9", 1, 1)), "task chain.t0 has no variant 'v9'; plan again"),
        (other_models(*[PlacedModel("chain", "t0", "v0", 1, 1)] * 2), "the slice holds chain.t0.v0 twice; use one"),
        (other_models(), "chain.t0: the plan gives this task no slice; plan again"),
        (other_graph, "chain: graph 'chain' is not in the plan; plan again"),
        (other_tasks, "chain: task 'old' is not in the graph; plan again"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_plan_of_another_graph_or_cluster_is_refused(change: Callable[[Plan], Plan], message: str) -> None:
    with pytest.raises(InputError) as caught:
        compiled(chain(2), change(every(chain(2))))
    assert message in str(caught.value)


def test_a_plan_of_unknown_graphs_is_refused() -> None:
    with pytest.raises(InputError, match="graph 'chain' is not in the graphs given"):
        compile_plan(
            every(chain()),
            {},
            cluster(),
            {},
            generation=1,
            templates=TEMPLATES,
            backends=frozenset({"python"}),
            identity=identity,
        )


def test_the_error_says_why_an_ensemble_cannot_express_the_graph() -> None:
    of = replace(chain(2), target="ensemble", outputs={"A": ref("t1.Y"), "B": ref("t1.Y")})
    with pytest.raises(InputError, match="chain: an ensemble cannot express the graph: outputs A and B are the same"):
        compiled(of)


@pytest.mark.parametrize("target", ["ensemble", "bls"])
def test_an_output_with_the_name_of_an_input_is_refused(target: str) -> None:
    of = graph([task("t", {"X": "inputs.X"})], {"X": "t.Y"}, target="bls" if target == "bls" else "ensemble")
    with pytest.raises(InputError, match="Triton would not serve the graph: X is both an input and an output"):
        compiled(of)


def test_a_task_with_the_name_of_the_pipeline_is_refused() -> None:
    of: TaskGraph = graph([task("pipeline", {"X": "inputs.X"})], {"Y": "pipeline.Y"}, target="bls")
    with pytest.raises(InputError, match=r"gateway: two models would be named 'app\.pipeline\.g3'; rename"):
        compiled(of)


def test_under_mps_each_instance_is_a_worker_with_its_part_of_the_slice() -> None:
    of = chain(1)
    placed = {(0, 0, "1g"): [PlacedModel("chain", "t0", "v0", 2, 4)]}
    machine = replace(cluster(), processes="mps")
    first = compiled(of, plan([of], placed), on=machine)
    assert list(first.workers) == ["n-0-1g-0-p1", "n-0-1g-0-p2"]
    one, two = first.workers.values()
    assert (one.process, one.memory_mib, two.process) == (1, 4864, 2)
    assert one.place == two.place == Place(GpuId("n", 0), "A100-80GB", Placement(0, "1g"))
    assert one.shares_with(two)
    assert [m.instances for m in (*one.models, *two.models)] == [1, 1]
    (task,) = first.graphs["chain"].tasks
    assert [(e.worker, e.slots) for e in task.route] == [("n-0-1g-0-p1", 1), ("n-0-1g-0-p2", 1)]
    # If one process is left in the slice, its worker stays and has all the memory of the slice.
    fewer = {(0, 0, "1g"): [PlacedModel("chain", "t0", "v0", 1, 4)]}
    second = compiled(of, plan([of], fewer), on=machine, generation=4, running=first)
    assert list(second.workers) == ["n-0-1g-0-p1"]
    assert second.workers["n-0-1g-0-p1"].memory_mib == 9728


def test_under_mps_models_cannot_share_a_slice() -> None:
    of = chain(2)
    placed = {(0, 0, "1g"): [PlacedModel("chain", task, "v0", 1, 4) for task in ("t0", "t1")]}
    with pytest.raises(InputError, match="2 models share the slice 1g@0, but processes under MPS cannot take turns"):
        compiled(of, plan([of], placed), on=replace(cluster(), processes="mps"))


def test_target_auto_compiles_to_one_front() -> None:
    for target in ("auto", "graph"):
        item = compiled(replace(chain(2), target=target)).graphs["chain"]
        assert (item.target, item.front.name, item.pipeline, item.models) == ("graph", "chain", None, ())
        assert [task.folder for task in item.tasks] == [None, None]


def test_an_output_that_is_an_input_needs_target_graph() -> None:
    of = replace(chain(2), outputs={"Y": ref("t1.Y"), "SAME": ref("inputs.X")})
    assert compiled(of).graphs["chain"].target == "graph"
    with pytest.raises(InputError, match="output SAME is the unchanged input X"):
        compiled(replace(of, target="ensemble"))
