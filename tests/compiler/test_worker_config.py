from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.bundle import Artifact, WorkerModel
from jigsaw_triton.compiler.templates import Template
from jigsaw_triton.compiler.worker_config import Identity, Server, worker_model
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.graph.model import GraphInput, TaskGraph, Variant
from jigsaw_triton.graph.tensors import TensorType
from jigsaw_triton.planner.domain.plan import PlacedModel
from jigsaw_triton.profiles.service import service_times
from jigsaw_triton.profiles.table import ProfileKey
from jigsaw_triton.runtime.spec import RunnerSpec, TensorSpec, runner_from_json
from tests.compiler.samples import TEMPLATES, identity, profile
from tests.fakes.graphs import VECTOR, chain, fan_out, graph, task

SERVER = Server(CATALOG["A100-80GB"], "1g", frozenset({"python"}), gpu=False, shared=False)
IMAGE = TensorType("UINT8", (-1, -1, 3))
ONE = TensorType("FP32", (1,))
ONNX = Variant("s", 1.0, "onnxruntime", {"model.onnx": Path("/models/s.onnx")}, {"threshold": "0.5"})
PYTHON = Variant("s", 1.0, "python", {"model.py": Path("/models/s.py")}, {"threshold": "0.5"})


def detector(variant: Variant = ONNX) -> TaskGraph:
    detect = task("detect", {"IMAGE": "inputs.FRAME"}, outputs={"BOXES": TensorType("FP32", (-1, 4))}, of=[variant])
    return graph([detect], {"BOXES": "detect.BOXES"}, inputs={"FRAME": IMAGE})


def with_onnx(base: TaskGraph) -> TaskGraph:
    """Returns the graph with an ONNX model for its task `detect`."""
    detect = replace(base.tasks["detect"], variants=(replace(ONNX, yields={"CROPS": 3.0}),))
    return replace(base, tasks={**base.tasks, "detect": detect})


def made(
    of: TaskGraph,
    server: Server = SERVER,
    *,
    instances: int = 2,
    batch: int = 4,
    generation: int = 3,
    templates: Mapping[str, Template] = TEMPLATES,
    known: Identity = identity,
    one_by_one: bool = False,
    deterministic: bool = False,
) -> WorkerModel:
    first = next(iter(of.tasks.values()))
    placed = PlacedModel(of.name, first.name, first.variants[0].name, instances, batch)
    return worker_model(
        of,
        placed,
        server,
        profile(of),
        generation=generation,
        templates=templates,
        identity=known,
        one_by_one=one_by_one,
        deterministic=deterministic,
    )


def config_of(model: WorkerModel) -> Any:
    return cfg.of_folder(model.folder)


def spec_of(model: WorkerModel) -> RunnerSpec:
    return runner_from_json(config_of(model).parameters["spec"].string_value)


def test_a_variant_uses_the_python_backend() -> None:
    model = made(detector(PYTHON))
    config = config_of(model)

    assert model.name == config.name == "app.detect.s.g3"
    assert (config.backend, config.max_batch_size, model.batch, model.instances) == ("python", 4, 4, 2)
    assert model.folder.files["1/model.py"] == b"runner"
    assert model.folder.files["1/variant.py"] == Artifact(Path("/models/s.py"))
    assert spec_of(model) == RunnerSpec(
        runner="python",
        inputs=(TensorSpec("IMAGE", "UINT8", (-1, -1, 3)),),
        outputs=(TensorSpec("BOXES", "FP32", (-1, 4)),),
        stack=False,
        parameters={"threshold": "0.5"},
    )
    assert {o.name: list(o.dims) for o in config.output} == {"BOXES": [-1, 4], "JIGSAW_TOKEN": [1]}
    assert model.tokens == 1
    assert config.input[0].allow_ragged_batch
    assert config.HasField("dynamic_batching")


def test_an_onnx_model_uses_the_compiled_backend_if_the_native_one_is_missing() -> None:
    model = made(detector())
    config = config_of(model)

    assert (config.backend, config.default_model_filename) == ("jigsaw", "model.onnx")
    assert set(model.folder.files) == {"config.pbtxt", "1/model.onnx"}
    assert spec_of(model) == replace(spec_of(made(detector(PYTHON))), runner="onnxruntime")
    assert ([o.name for o in config.output], model.tokens) == (["BOXES"], 0)
    assert config.input[0].allow_ragged_batch
    assert config.HasField("dynamic_batching")


def test_the_compiled_backend_pads_rows() -> None:
    model = made(with_onnx(fan_out()))
    assert (model.pads, spec_of(model).pads, model.tokens) == (True, ("CROPS",), 0)
    assert [o.name for o in config_of(model).output] == ["BOX", "CROPS", "JIGSAW_ROWS.CROPS"]
    assert not config_of(model).HasField("dynamic_batching")


def test_a_variant_uses_the_native_backend_if_the_server_has_it() -> None:
    model = made(detector(), replace(SERVER, backends=frozenset({"python", "onnxruntime"})))
    config = config_of(model)

    assert (config.backend, config.default_model_filename) == ("onnxruntime", "model.onnx")
    assert set(model.folder.files) == {"config.pbtxt", "1/model.onnx"}
    assert {key: value.string_value for key, value in config.parameters.items()} == {"threshold": "0.5"}
    assert ([o.name for o in config.output], model.tokens) == (["BOXES"], 0)
    assert not config.input[0].allow_ragged_batch


def test_rows_that_other_tasks_iterate_over_are_padded() -> None:
    of = fan_out()
    model = made(of)
    config = config_of(model)
    assert (model.pads, spec_of(model).pads, model.tokens) == (True, ("CROPS",), 1)
    assert {o.name: list(o.dims) for o in config.output} == {
        "BOX": [16],
        "CROPS": [-1, 16],
        "JIGSAW_TOKEN": [1],
        "JIGSAW_ROWS.CROPS": [1],
    }
    assert not config.HasField("dynamic_batching")


@pytest.mark.parametrize(
    ("shape", "one_by_one"), [((-1, 16), True), ((-1, -1, 3), False)], ids=["a chain of items", "varying rows"]
)
def test_rows_are_not_padded_if_items_arrive_one_by_one(shape: tuple[int, ...], one_by_one: bool) -> None:
    base = fan_out()
    detect = replace(base.tasks["detect"], outputs={**base.tasks["detect"].outputs, "CROPS": TensorType("FP32", shape)})
    model = made(replace(base, tasks={**base.tasks, "detect": detect}), one_by_one=one_by_one)
    assert (model.pads, spec_of(model).pads) == (False, ())
    assert config_of(model).HasField("dynamic_batching")


def test_rows_of_a_native_backend_are_not_padded() -> None:
    model = made(with_onnx(fan_out()), replace(SERVER, backends=frozenset({"python", "onnxruntime"})))
    assert (model.pads, [o.name for o in config_of(model).output]) == (False, ["BOX", "CROPS"])
    assert config_of(model).HasField("dynamic_batching")


def test_an_item_of_a_for_each_task_is_one_row() -> None:
    of = fan_out()
    model = worker_model(
        of,
        PlacedModel("fan_out", "classify", "v0", 1, 8),
        SERVER,
        profile(of),
        generation=1,
        templates=TEMPLATES,
        identity=identity,
    )
    assert list(config_of(model).input[0].dims) == [16]
    assert spec_of(model).stack


@pytest.mark.parametrize(
    ("template", "board", "gpu", "kind"),
    [
        ("onnxruntime", "A100-80GB", True, "KIND_GPU"),
        ("onnxruntime", "A100-80GB", False, "KIND_CPU"),
        ("emulated", "A100-80GB", True, "KIND_CPU"),
    ],
)
def test_a_model_uses_a_real_gpu_unless_it_is_emulated(template: str, board: str, gpu: bool, kind: str) -> None:
    model = made(detector(replace(ONNX, template=template)), replace(SERVER, board=CATALOG[board], gpu=gpu))
    group = config_of(model).instance_group[0]
    assert (group.count, ModelInstanceGroup.Kind.Name(group.kind)) == (2, kind)


@pytest.mark.parametrize(
    ("board", "slice_", "instances", "threads"),
    [("cpu", "3g", 1, 3), ("cpu", "7g", 2, 3), ("cpu", "1g", 3, 1), ("A100-80GB", "7g", 1, 1)],
)
def test_an_instance_has_its_share_of_a_cpu_slices_threads(
    board: str, slice_: str, instances: int, threads: int
) -> None:
    server = replace(SERVER, board=CATALOG[board], slice=slice_)
    assert spec_of(made(detector(), server, instances=instances)).threads == threads


def test_models_that_share_a_slice_take_turns() -> None:
    alone, shared = made(chain()), made(chain(), replace(SERVER, shared=True))
    assert not config_of(alone).instance_group[0].HasField("rate_limiter")
    (resource,) = config_of(shared).instance_group[0].rate_limiter.resources
    assert (resource.name, getattr(resource, "global"), resource.count) == ("slice", True, 1)


def test_an_emulated_variant_has_profiled_times_and_yields() -> None:
    emulation = spec_of(made(fan_out(rows=2.5))).emulation
    assert emulation is not None
    fitted = service_times(profile(fan_out()))[ProfileKey("A100-80GB", "detect", "v0", "1g", 2, 4)]
    assert emulation.medians_ms == (5.5, 11.0, 12.0, 13.0, 14.0) == tuple(fitted.medians_ms)
    assert (emulation.p95, emulation.p99, emulation.rest) == (fitted.p95, fitted.p99, fitted.rest)
    assert emulation.yields == {"CROPS": 2.5}
    assert not emulation.deterministic


def test_a_deterministic_variant_is_another_model() -> None:
    drawn, even = made(fan_out()), made(fan_out(), deterministic=True)
    emulation = spec_of(even).emulation
    assert emulation is not None
    assert emulation.deterministic
    assert drawn.digest != even.digest


def test_an_emulated_variant_without_a_profile_is_refused() -> None:
    with pytest.raises(InputError, match=r"chain\.t0\.v0: there is no profile of 2 instances at batch 3 on a 1g slice"):
        made(chain(), batch=3)
    with pytest.raises(InputError, match="plan again with the current profiles"):
        made(chain(), replace(SERVER, slice="2g"))


def test_the_error_names_a_missing_backend() -> None:
    templates = {**TEMPLATES, "mine": Template("mine", 'backend: "tensorrt"')}
    with pytest.raises(
        InputError, match=r"app\.detect\.s: template 'mine' needs the backend 'tensorrt'.*the server has python"
    ):
        made(detector(replace(ONNX, template="mine")), templates=templates)


def test_the_error_names_a_missing_artifact() -> None:
    native = replace(SERVER, backends=frozenset({"onnxruntime"}))
    with pytest.raises(InputError, match=r"needs a file 'model\.onnx'.*artifacts: \{model\.onnx: <path>\}"):
        made(detector(replace(ONNX, artifacts={"other.onnx": Path("/other")})), native)


@pytest.mark.parametrize("name", ["../config.pbtxt", "/etc/passwd"])
def test_an_artifact_outside_the_model_folder_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="an artifact cannot be stored as"):
        made(detector(replace(ONNX, artifacts={name: Path("/x")})))


def test_a_users_model_py_becomes_variant_py() -> None:
    model = made(detector(replace(PYTHON, artifacts={"model.py": Path("/mine.py")})))
    assert model.folder.files["1/model.py"] == b"runner"
    assert model.folder.files["1/variant.py"] == Artifact(Path("/mine.py"))
    with pytest.raises(InputError, match=r"an artifact cannot be stored as 'variant\.py'"):
        made(detector(replace(PYTHON, artifacts={"model.py": Path("/mine.py"), "variant.py": Path("/other.py")})))


@pytest.mark.parametrize(("output", "backend"), [("BOXES__0", "pytorch"), ("BOXES", "python"), ("BOXES__1", "python")])
def test_torch_uses_the_native_backend_if_tensor_names_are_numbered(output: str, backend: str) -> None:
    variant = Variant("s", 1.0, "torch", {"model.pt": Path("/models/s.pt")})
    detect = task("detect", {"IMAGE__0": "inputs.X"}, outputs={output: VECTOR}, of=[variant])
    of = graph([detect], {"BOXES": f"detect.{output}"})
    templates = {"torch": Template("torch", 'backend: "python"', 'backend: "pytorch"', b"runner")}
    model = made(of, replace(SERVER, backends=frozenset({"python", "pytorch"})), templates=templates)
    assert config_of(model).backend == backend


def test_the_error_names_an_invalid_template_config() -> None:
    with pytest.raises(InputError, match=r"onnxruntime/config\.pbtxt: the base .* is not valid"):
        made(detector(), templates={**TEMPLATES, "onnxruntime": Template("onnxruntime", "backend python")})


def test_a_change_of_a_parsed_config_reaches_no_other() -> None:
    cfg.parse('backend: "python"', where="base").name = "changed"
    assert cfg.parse('backend: "python"', where="base").name == ""


def test_other_fields_of_a_template_config_are_kept() -> None:
    base = 'backend: "python"\ndynamic_batching { max_queue_delay_microseconds: 70 }\nresponse_cache { enable: true }'
    config = config_of(made(detector(), templates={**TEMPLATES, "onnxruntime": Template("onnxruntime", base)}))
    assert config.dynamic_batching.max_queue_delay_microseconds == 70
    assert config.response_cache.enable


@pytest.mark.parametrize(("of", "batch", "delay_us"), [(detector(), 4, 500), (detector(), 1, 0), (chain(), 4, 0)])
def test_a_worker_waits_for_items_that_arrive_one_by_one(of: TaskGraph, batch: int, delay_us: int) -> None:
    assert config_of(made(of, batch=batch)).dynamic_batching.max_queue_delay_microseconds == delay_us


def test_a_digest_covers_everything_except_the_name() -> None:
    digest = made(detector()).digest
    assert made(detector(), generation=9).digest == digest
    changed = [
        made(detector(), batch=8),
        made(detector(), instances=1),
        made(detector(), known=lambda path: "other content"),
        made(detector(replace(ONNX, parameters={"threshold": "0.6"}))),
    ]
    moved = replace(ONNX, artifacts={"model.onnx": Path("/models/l.onnx")})
    assert len({made(detector(variant), known=lambda path: "same").digest for variant in (ONNX, moved)}) == 1
    templates = {**TEMPLATES, "python": replace(TEMPLATES["python"], model_py=b"newer runner")}
    changed += [made(detector(PYTHON)), made(detector(PYTHON), templates=templates)]
    digests = [model.digest for model in changed]
    assert digest not in digests
    assert len(set(digests)) == len(digests)


def test_the_content_depends_neither_on_the_slice_nor_on_the_instances_nor_on_the_batch() -> None:
    content = made(detector()).content
    assert {made(detector(), batch=8).content, made(detector(), instances=1, generation=9).content} == {content}
    changed = [
        made(detector(), known=lambda path: "other content"),
        made(detector(replace(ONNX, parameters={"threshold": "0.6"}))),
        made(
            detector(),
            templates={**TEMPLATES, "onnxruntime": replace(TEMPLATES["onnxruntime"], model_py=b"newer runner")},
        ),
    ]
    contents = [model.content for model in changed]
    assert content not in contents
    assert len(set(contents)) == len(contents)


def test_variants_of_other_templates_have_other_contents() -> None:
    of_template = [made(detector(replace(ONNX, template=name))) for name in ("onnxruntime", "python")]
    assert of_template[0].content != of_template[1].content


def test_the_content_of_a_native_model_depends_on_its_template_and_parameters() -> None:
    native, other = replace(SERVER, backends=frozenset({"onnxruntime"})), replace(ONNX, template="mine")
    templates = {**TEMPLATES, "mine": replace(TEMPLATES["onnxruntime"], name="mine")}
    changed = [ONNX, other, replace(ONNX, parameters={"threshold": "0.6"})]
    assert len({made(detector(variant), native, templates=templates).content for variant in changed}) == 3


def test_the_content_does_not_depend_on_the_threads_of_a_slice() -> None:
    sizes = [replace(SERVER, board=CATALOG["cpu"], slice=slice_) for slice_ in ("3g", "7g")]
    one, two = (made(detector(), server, instances=1) for server in sizes)
    assert (one.content, spec_of(one).threads) != (two.content, spec_of(two).threads)
    assert one.content == two.content


def test_the_content_of_an_emulated_variant_depends_on_how_it_draws_but_not_on_its_times() -> None:
    slower = replace(SERVER, board=CATALOG["A100-80GB"])
    one, two = made(fan_out(), slower, batch=4), made(fan_out(), slower, batch=8)
    assert spec_of(one).emulation != spec_of(two).emulation
    assert one.content == two.content != made(fan_out(), deterministic=True).content


def test_emulated_variants_with_other_yields_have_other_contents() -> None:
    one, two = (made(fan_out(rows=rows)).content for rows in (2.5, 3.0))
    assert one != two


def test_an_output_with_the_name_of_the_token_is_refused() -> None:
    of = graph([task("t", {"X": "inputs.X"}, outputs={"JIGSAW_TOKEN": VECTOR})], {"Y": "t.JIGSAW_TOKEN"})
    with pytest.raises(InputError, match=r"app\.t\.v0: no output may be named JIGSAW_TOKEN; rename the output"):
        made(of)


def test_tensors_that_triton_does_not_support_are_refused() -> None:
    scalar = graph([task("t", {"X": "inputs.X"}, outputs={"Y": TensorType("FP32", ())})], {"Y": "t.Y"})
    with pytest.raises(InputError, match=r"tensor Y has no dimension; give it one"):
        made(scalar)
    unknown = graph([task("t", {"X": "inputs.X"}, outputs={"Y": TensorType("FP8", (1,))})], {"Y": "t.Y"})
    with pytest.raises(InputError, match="Triton has no data type 'FP8'"):
        made(unknown)


@pytest.mark.parametrize("backends", [{"python"}, {"python", "onnxruntime"}])
def test_triton_reshapes_tensors_that_a_model_has_without_dimensions(backends: set[str]) -> None:
    base = detector()
    detect = replace(
        task("detect", {"X": "inputs.X", "Y": "inputs.X"}, outputs={"A": ONE, "B": ONE}, of=[ONNX]),
        scalar_inputs=frozenset({"Y"}),
        scalar_outputs=frozenset({"A"}),
    )
    model = made(
        replace(base, tasks={"detect": detect}, inputs={"X": GraphInput(ONE)}),
        replace(SERVER, backends=frozenset(backends)),
    )
    config = config_of(model)
    tensors = [*config.input, *config.output]
    assert {t.name: list(t.dims) for t in tensors if t.name != "JIGSAW_TOKEN"} == {name: [1] for name in "XYAB"}
    assert {t.name: list(t.reshape.shape) for t in tensors if t.HasField("reshape")} == {"Y": [], "A": []}
    if "onnxruntime" not in backends:
        spec = spec_of(model)
        assert {t.name: t.shape for t in (*spec.inputs, *spec.outputs)} == {"X": (1,), "Y": (), "A": (), "B": (1,)}
