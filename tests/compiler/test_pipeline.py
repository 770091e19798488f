from dataclasses import replace

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.bundle import CompiledGraph
from jigsaw_triton.compiler.pipeline import MAX_INSTANCES
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.runtime.spec import PipelineSpec, PipelineStep, pipeline_from_json
from tests.compiler.samples import compiled, every, spec_of, spec_text
from tests.fakes.graphs import chain, conditional, fan_out, ref


def as_bls(of: TaskGraph) -> CompiledGraph:
    return compiled(replace(of, target="bls")).graphs[of.name]


def pipeline_of(item: CompiledGraph) -> PipelineSpec:
    assert item.pipeline is not None
    return pipeline_from_json(spec_text(item.pipeline))


def test_an_ensemble_with_the_graphs_name_calls_the_pipeline() -> None:
    item = as_bls(chain(2))
    assert item.target == "bls"
    assert item.pipeline is not None
    config, front = cfg.of_folder(item.pipeline), cfg.of_folder(item.front)
    assert item.pipeline.files["1/model.py"] == b"pipeline"
    assert (config.name, config.max_batch_size, config.instance_group[0].count) == ("chain.pipeline.g3", 64, 1)
    assert not config.HasField("dynamic_batching")
    (step,) = front.ensemble_scheduling.step
    assert (front.name, front.max_batch_size, step.model_name) == ("chain", 64, "chain.pipeline.g3")
    assert (dict(step.input_map), dict(step.output_map)) == ({"X": "X"}, {"Y": "Y"})


def test_steps_of_a_pipeline_name_tensors_as_the_graph_does() -> None:
    assert pipeline_of(as_bls(conditional())) == PipelineSpec(
        graph="conditional",
        inputs={"X": "inputs.X"},
        outputs={"SCORE": "screen.SCORE", "REPORT": "inspect.Y"},
        steps=(
            PipelineStep("conditional.screen.g3", {"X": "inputs.X"}, {"SCORE": "screen.SCORE", "Y": "screen.Y"}),
            PipelineStep(
                "conditional.inspect.g3", {"X": "screen.Y", "JIGSAW_WHEN": "screen.SCORE"}, {"Y": "inspect.Y"}
            ),
        ),
        split=True,
        slo_ms=1000.0,
    )


def test_a_pipeline_has_instances_for_two_batches_per_worker_slot() -> None:
    for tasks, instances, count in ((2, 1, 1), (2, 2, 2), (2, 4, 4), (6, 4, MAX_INSTANCES)):
        of = replace(chain(tasks), target="bls")
        item = compiled(of, every(of, instances=instances, batch=8)).graphs["chain"]
        assert item.pipeline is not None
        assert cfg.of_folder(item.pipeline).instance_group[0].count == count


def test_only_fronts_of_a_pipeline_name_the_party_that_a_failure_blames() -> None:
    def blaming(item: CompiledGraph) -> list[bool]:
        return [spec_of(task.folder)["blaming"] for task in item.tasks if task.folder is not None]

    assert blaming(as_bls(chain(2))) == [True, True]
    assert blaming(compiled(chain(2), target="ensemble").graphs["chain"]) == [False, False]


def test_a_pipeline_knows_the_overload_policy() -> None:
    assert [pipeline_of(as_bls(replace(chain(), overload=kind))).overload for kind in ("refuse", "queue")] == [
        "refuse",
        "queue",
    ]


def test_clients_may_send_batches_to_a_pipeline_even_if_rows_fan_out() -> None:
    item = as_bls(fan_out())
    assert item.pipeline is not None
    assert [cfg.of_folder(folder).max_batch_size for folder in (item.front, item.pipeline)] == [64, 64]
    assert (pipeline_of(item).split, pipeline_of(as_bls(chain())).split) == (True, False)


def test_a_pipeline_can_express_outputs_that_an_ensemble_cannot() -> None:
    outputs = {"Y": ref("t1.Y"), "SAME": ref("inputs.X"), "TWICE": ref("t1.Y")}
    item = as_bls(replace(chain(2), outputs=outputs))
    assert pipeline_of(item).outputs == {"Y": "t1.Y", "SAME": "inputs.X", "TWICE": "t1.Y"}
