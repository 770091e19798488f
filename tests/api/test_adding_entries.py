"""Adding entries of model repositories and Hugging Face models."""

from importlib.util import find_spec
from pathlib import Path

import pytest

import jigsaw_triton as jt
from jigsaw_triton.api.adding import add_models
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.tensors import TensorType
from tests.fakes.onnx_models import classifier
from tests.fakes.transformers_models import save_bert

pytestmark = pytest.mark.usefixtures("kept_models")

CONFIG = """\
platform: "onnxruntime_onnx"
max_batch_size: 8
input [{ name: "X" data_type: TYPE_FP32 dims: [4] }]
output [
  { name: "LABEL" data_type: TYPE_INT64 dims: [1] reshape { shape: [] } },
  { name: "SCORES" data_type: TYPE_FP32 dims: [-1] }
]
"""


def entry(folder: Path, config: str, file: str = "model.onnx") -> Path:
    (folder / "1").mkdir(parents=True)
    (folder / "2").mkdir()
    (folder / "config.pbtxt").write_text(config)
    (folder / "1" / "old.onnx").write_bytes(b"old")
    (folder / "2" / file).parent.mkdir(exist_ok=True)
    (folder / "2" / file).write_bytes(classifier())
    return folder


def test_an_entry_of_a_model_repository_is_added(tmp_path: Path) -> None:
    added = add_models([entry(tmp_path / "resnet", CONFIG)], task="t", graph=tmp_path / "app")
    task = added.graph.tasks["t"]
    (variant,) = task.variants
    assert (variant.name, variant.template, task.scalar_outputs) == ("resnet", "onnxruntime", frozenset({"LABEL"}))
    assert task.outputs["SCORES"] == TensorType("FP32", (-1,))
    assert variant.artifacts["model.onnx"].read_bytes() == classifier()


def test_the_current_folder_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(entry(tmp_path / "resnet", CONFIG))
    added = add_models(["."], task="t", graph=tmp_path / "app")
    assert added.variants == ("resnet",)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("transformers") is None, reason="the extra `transformers` is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_hugging_face_models_are_added(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert", "BertForSequenceClassification")
    (folder / "README.md").touch()
    added = add_models([folder], task="t", graph=tmp_path / "app")
    task = added.graph.tasks["t"]
    (variant,) = task.variants
    assert (variant.name, variant.template) == ("bert", "transformers")
    assert variant.parameters == {"pipeline": "text-classification"}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= variant.artifacts.keys()
    assert "README.md" not in variant.artifacts
    assert added.graph.inputs["TEXT"].type == TensorType("BYTES", (1,))
    assert task.outputs == {"label": TensorType("BYTES", (1,)), "score": TensorType("FP32", (1,))}
    assert task.scalar_outputs == {"label", "score"}

    # Results that differ in number have a dimension that varies.
    add_models([save_bert(tmp_path / "tokens", "BertForTokenClassification")], task="u", graph=tmp_path / "app")
    task = jt.load_graph(tmp_path / "app").tasks["u"]
    assert {kind.shape for kind in task.outputs.values()} == {(-1,)}
    assert jt.check_models(tmp_path / "app") == []


def test_models_of_two_folders_have_files_of_the_same_name(tmp_path: Path) -> None:
    first, second = (entry(tmp_path / name, CONFIG) for name in ("net", "net2"))
    (second / "2" / "model.onnx").write_bytes(classifier() + classifier())
    added = add_models([first, second], task="t", graph=tmp_path / "app")
    copies = [variant.artifacts["model.onnx"] for variant in added.graph.tasks["t"].variants]
    assert [path.relative_to((tmp_path / "app" / "models").resolve()).as_posix() for path in copies] == [
        "net/model.onnx",
        "net2/model.onnx",
    ]
    other = entry(tmp_path / "elsewhere" / "net", CONFIG)
    (other / "2" / "model.onnx").write_bytes(classifier() * 3)
    with pytest.raises(InputError, match=r"net/model\.onnx: another file is there already; rename net$"):
        add_models([other], task="t", graph=tmp_path / "app")


def test_parameters_of_a_configuration_that_are_left_out_are_noted(tmp_path: Path) -> None:
    config = CONFIG + 'parameters { key: "intra_op_thread_count" value { string_value: "2" } }\n'
    added = add_models([entry(tmp_path / "m", config)], task="t", graph=tmp_path / "app", accuracy=[1])
    (note,) = (note for note in added.notes if "config.pbtxt" in note)
    assert "are left out (intra_op_thread_count); write those that the template has into the variant" in note
    assert not added.graph.tasks["t"].variants[0].parameters


@pytest.mark.parametrize(
    ("old", "new", "file", "message"),
    [
        ("onnxruntime_onnx", "tensorflow_savedmodel", "model/x", r"2: the model has folders \(model\), but artifacts"),
        ("onnxruntime_onnx", "tensorrt_plan", "model.onnx", r"2: there is no file model\.plan; add the model's file"),
        ("onnxruntime_onnx", "ensemble", "model.onnx", "the configuration has no backend"),
        (
            'platform: "onnxruntime_onnx"\nmax_batch_size: 8',
            'backend: "python"',
            "model.py",
            "the model takes no batches",
        ),
        ("dims: [4]", "dims: [2, 2] reshape { shape: [4] }", "model.onnx", "the reshape of X is not supported"),
        ("platform", "plattform", "model.onnx", "is not valid"),
    ],
)
def test_an_entry_that_no_template_serves_is_refused(
    tmp_path: Path, old: str, new: str, file: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        add_models([entry(tmp_path / "m", CONFIG.replace(old, new), file)], task="t", graph=tmp_path / "app")
    assert not (tmp_path / "app").exists()


def test_a_model_of_another_backend_keeps_its_configuration(tmp_path: Path) -> None:
    config = CONFIG.replace('platform: "onnxruntime_onnx"', 'backend: "python"')
    added = add_models([entry(tmp_path / "m", config, "model.py")], task="t", graph=tmp_path / "app")
    (variant,) = added.graph.tasks["t"].variants
    assert (variant.template, variant.config) == ("folder", config)
    assert {name: path.name for name, path in variant.artifacts.items()} == {
        "config.pbtxt": "config.pbtxt",
        "model.py": "model.py",
    }


def test_an_engine_is_added_by_its_configuration(tmp_path: Path) -> None:
    config = CONFIG.replace("onnxruntime_onnx", "tensorrt_plan") + 'default_model_filename: "engine.plan"\n'
    added = add_models([entry(tmp_path / "m", config, "engine.plan")], task="t", graph=tmp_path / "app")
    assert added.graph.tasks["t"].variants[0].template == "tensorrt"
    assert list(added.graph.tasks["t"].variants[0].artifacts) == ["model.plan"]
