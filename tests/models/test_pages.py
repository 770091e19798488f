"""The examples of docs/templates."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from jigsaw_triton.api.checking import check_models
from jigsaw_triton.api.files import load_graph, variant_templates
from jigsaw_triton.cli.main import program
from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.bundle import WorkerModel
from jigsaw_triton.compiler.templates import load_templates
from jigsaw_triton.compiler.worker_config import worker_model
from jigsaw_triton.errors import SpecError
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.models.kinds import KINDS
from jigsaw_triton.planner.domain.plan import PlacedModel
from jigsaw_triton.resources import templates_dir
from tests.compiler.samples import identity
from tests.compiler.test_worker_config import SERVER
from tests.fakes.onnx_models import FLOAT, INT64, constant, model, node, tensor
from tests.fakes.transformers_models import save_bert

pytestmark = pytest.mark.usefixtures("kept_models")

PAGES = Path(__file__).parents[2] / "docs" / "templates"


def blocks(template: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (PAGES / f"{template}.md").read_text(), re.DOTALL)


def written(template: str, folder: Path, files: Iterable[str] = ()) -> Path:
    """Writes the page's graph.yaml, and empty files."""
    (folder / "graph.yaml").write_text(*blocks(template, "yaml"))
    for name in files:
        (folder / name).touch()
    return folder


def test_the_models_of_every_template_are_known() -> None:
    assert KINDS.keys() == variant_templates()


@pytest.mark.parametrize("template", sorted(KINDS))
def test_the_example_uses_the_template(tmp_path: Path, template: str) -> None:
    graph = load_graph(written(template, tmp_path))
    variants = [variant for task in graph.tasks.values() for variant in task.variants]
    assert {variant.template for variant in variants} == {template}
    assert all(KINDS[template].artifact in variant.artifacts for variant in variants if KINDS[template].artifact)


def test_the_example_of_python_runs(tmp_path: Path) -> None:
    np.save(tmp_path / "weights.npy", np.eye(4, 3, dtype=np.float32))
    (tmp_path / "model.py").write_text(*blocks("python", "python"))
    assert check_models(written("python", tmp_path)) == []


def test_the_example_of_python_can_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("weights.npy", np.eye(4, 3, dtype=np.float32))
    Path("model.py").write_text(*blocks("python", "python"))
    (line,) = blocks("python", "sh")
    _, *arguments = shlex.split(line)
    assert CliRunner().invoke(program, arguments).exit_code == 0
    assert check_models(tmp_path) == []
    (variant,) = load_graph(tmp_path).tasks["classify"].variants
    assert set(variant.artifacts) == {"model.py", "weights.npy"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_the_example_of_torch_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # TorchScript reads the source of the class from its file.
    (tmp_path / "export.py").write_text(*blocks("torch", "python"))
    monkeypatch.syspath_prepend(tmp_path)
    __import__("export")
    assert check_models(written("torch", tmp_path)) == []


def test_the_example_of_onnxruntime_runs(tmp_path: Path) -> None:
    """The model has the inputs and outputs of the one that skl2onnx makes."""
    pytest.importorskip("onnxruntime")
    content = model(
        [
            node("Gather", ["X", "FIRST"], "probabilities", axis=1),
            node("ArgMax", ["probabilities"], "label", axis=1, keepdims=0),
        ],
        [tensor("X", FLOAT, ["N", 4])],
        [tensor("label", INT64, ["N"]), tensor("probabilities", FLOAT, ["N", 3])],
        constants=[constant("FIRST", [0, 1, 2])],
    )
    (tmp_path / "iris.onnx").write_bytes(content)
    assert check_models(written("onnxruntime", tmp_path)) == []


@pytest.mark.slow
@pytest.mark.skipif(find_spec("transformers") is None, reason="the extra `transformers` is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_example_of_transformers_runs(tmp_path: Path) -> None:
    save_bert(tmp_path / "sentiment", "BertForSequenceClassification")
    assert check_models(written("transformers", tmp_path)) == []


def test_the_example_of_folder_is_served_with_its_own_configuration(tmp_path: Path) -> None:
    (tmp_path / "models" / "mean" / "1").mkdir(parents=True)
    (tmp_path / "models" / "mean" / "config.pbtxt").write_text(*blocks("folder", "text"))
    (tmp_path / "models" / "mean" / "1" / "model.py").write_text(*blocks("folder", "python"))
    assert check_models(written("folder", tmp_path)) == []
    compiled = compiled_with(load_graph(tmp_path), {"python"})
    config = cfg.of_folder(compiled.folder)
    assert (config.backend, config.max_batch_size, compiled.tokens) == ("python", 6, 0)
    assert [(o.name, list(o.dims), o.HasField("reshape")) for o in config.output] == [("MEAN", [1], True)]
    assert not config.parameters
    assert set(compiled.folder.files) == {"config.pbtxt", "1/model.py"}
    edited = (tmp_path / "graph.yaml").read_text().replace("shape: []", "shape: [2]")
    (tmp_path / "graph.yaml").write_text(edited)
    with pytest.raises(SpecError, match=r"config\.pbtxt returns 'MEAN' as FP32 \[\], but average declares FP32 \[2\]"):
        check_models(tmp_path)


@pytest.mark.parametrize("kind", ["KIND_CPU", "KIND_GPU"])
def test_groups_of_a_configuration_on_processors_stay_there(tmp_path: Path, kind: str) -> None:
    (tmp_path / "models" / "mean").mkdir(parents=True)
    groups = f"instance_group [{{ count: 1 kind: {kind} }}, {{ count: 1 kind: KIND_CPU }}]\n"
    (tmp_path / "models" / "mean" / "config.pbtxt").write_text(blocks("folder", "text")[0] + groups)
    config = cfg.of_folder(compiled_with(load_graph(written("folder", tmp_path)), {"python"}).folder)
    assert [group.Kind.Name(group.kind) for group in config.instance_group] == [kind]


def compiled_with(graph: TaskGraph, backends: set[str]) -> WorkerModel:
    """Compiles the first variant of the only task for a slice of a GPU, with a batch size of 6."""
    (task,) = graph.tasks.values()
    return worker_model(
        graph,
        PlacedModel(graph.name, task.name, task.variants[0].name, 1, 6),
        replace(SERVER, backends=frozenset(backends), gpu=True),
        None,
        generation=1,
        templates=load_templates(templates_dir()),
        identity=identity,
    )


@pytest.mark.parametrize(
    ("template", "files", "gpu"), [("tensorrt", ["model.plan"], True), ("openvino", ["model.xml", "model.bin"], False)]
)
def test_a_native_backend_serves_the_files_unchanged(
    tmp_path: Path, template: str, files: list[str], gpu: bool
) -> None:
    compiled = compiled_with(load_graph(written(template, tmp_path)), {"python", template})
    config = cfg.of_folder(compiled.folder)
    assert (config.backend, config.default_model_filename, config.max_batch_size) == (template, files[0], 6)
    assert config.instance_group[0].Kind.Name(config.instance_group[0].kind) == ("KIND_GPU" if gpu else "KIND_CPU")
    assert {name.removeprefix("1/") for name in compiled.folder.files} == {"config.pbtxt", *files}
