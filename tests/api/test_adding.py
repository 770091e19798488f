import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import jigsaw_triton as jt
from jigsaw_triton.api.adding import add_models
from jigsaw_triton.api.graph_changes import GRAPH_FILE
from jigsaw_triton.errors import InputError, SpecError
from jigsaw_triton.graph.model import TensorRef, TensorType
from tests.fakes.onnx_models import FLOAT, INT64, classifier, constant, external, model, node, sequence, tensor
from tests.fakes.transformers_models import save_bert

X = tensor("X", FLOAT, ["N", 4])
LABEL = tensor("LABEL", INT64, ["N"])

COMMENTED = """\
# The application.
apiVersion: jigsaw-triton/v1
kind: TaskGraph
metadata: {name: shop}   # its name
spec:
  slo: {latency_ms: 50}
  inputs: {X: {dtype: FP32, shape: [4]}, IMAGE: {dtype: UINT8, shape: [-1, -1, 3]}} # inputs
  outputs:
    LABEL: first.LABEL   # the label
    # more to come

  tasks:
    first:
      inputs: {X: inputs.X, IMAGE: inputs.IMAGE}
      outputs: {LABEL: {dtype: INT64, shape: [1]}}
      variants: [{name: a, accuracy: 1, template: emulated}]
  # The end of the tasks.
  target: graph
"""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Folder with a model, outside the folder of the graph."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "m.onnx").write_bytes(classifier())
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_graph_has_the_inputs_and_outputs_of_the_model(tmp_path: Path, outside: Path) -> None:
    added = add_models([outside / "m.onnx"], task="classify", graph=tmp_path / "my-app", accuracy=[0.9])
    graph = jt.load_graph(tmp_path / "my-app", require_files=True)
    assert added.graph == graph
    task = graph.tasks["classify"]
    assert graph.name == "my-app"
    assert graph.inputs["X"].type == TensorType("FP32", (4,))
    assert graph.outputs == {"LABEL": TensorRef("classify", "LABEL"), "SCORES": TensorRef("classify", "SCORES")}
    assert task.outputs == {"LABEL": TensorType("INT64", (1,)), "SCORES": TensorType("FP32", (4,))}
    assert task.scalar_outputs == {"LABEL"}
    (variant,) = task.variants
    assert (variant.name, variant.accuracy, variant.template) == ("m", 0.9, "onnxruntime")
    assert variant.artifacts == {"model.onnx": (tmp_path / "my-app" / "models" / "m.onnx").resolve()}
    assert added.copied == (variant.artifacts["model.onnx"],)
    assert variant.artifacts["model.onnx"].read_bytes() == classifier()


def test_comments_and_layout_are_kept(tmp_path: Path) -> None:
    (tmp_path / "graph.yaml").write_text(COMMENTED)
    (tmp_path / "head.onnx").write_bytes(
        model(
            [node("Add", ["IMAGE", "LABEL"], "LABEL")],
            [tensor("IMAGE", FLOAT, ["N", "H"]), tensor("X", FLOAT, ["N", 4])],
            [LABEL],
        )
    )
    added = add_models([tmp_path / "head.onnx"], task="second", graph=tmp_path, accuracy=[2])
    text = (tmp_path / "graph.yaml").read_text()
    lines = text.splitlines()
    assert [line for line in lines if line in COMMENTED.splitlines()] == [
        line for line in COMMENTED.splitlines() if not line.startswith("  inputs:")
    ]
    assert lines[lines.index("    LABEL: first.LABEL   # the label") + 1] == "    second_LABEL: second.LABEL"
    assert lines[6].endswith("second_IMAGE: {dtype: FP32, shape: [-1]}} # inputs")
    assert added.graph == jt.load_graph(tmp_path)
    second = added.graph.tasks["second"]
    assert second.inputs == {"IMAGE": TensorRef("inputs", "second_IMAGE"), "X": TensorRef("inputs", "X")}
    assert added.copied == ()


def test_windows_line_ends_and_permissions_are_kept(tmp_path: Path, outside: Path) -> None:
    file = tmp_path / "graph.yaml"
    file.write_bytes(COMMENTED.replace("\n", "\r\n").encode())
    file.chmod(0o640)
    add_models([outside / "m.onnx"], task="second", graph=file)
    content = file.read_bytes()
    assert content.count(b"\r\n") == content.count(b"\n") > COMMENTED.count("\n")
    assert file.stat().st_mode & 0o777 == 0o640


def test_the_file_that_a_link_names_is_changed(tmp_path: Path, outside: Path) -> None:
    real, link = tmp_path / "shared.yaml", tmp_path / "app" / "graph.yaml"
    real.write_text(COMMENTED)
    link.parent.mkdir()
    link.symlink_to(real)
    add_models([outside / "m.onnx"], task="second", graph=link)
    assert link.readlink() == real
    assert real.read_text().startswith(COMMENTED[:20])
    assert "second" in jt.load_graph(link).tasks


def test_several_models_are_variants_of_one_task_and_more_may_follow(tmp_path: Path, outside: Path) -> None:
    (outside / "2 big.onnx").write_bytes(classifier())
    graph = tmp_path / "app"
    add_models([outside / "m.onnx", outside / "2 big.onnx"], task="classify", graph=graph, accuracy=[0.8, 0.9])
    add_models([entry(outside / "deep" / "m", CONFIG)], task="classify", graph=graph, accuracy=[0.7])
    variants = jt.load_graph(graph).tasks["classify"].variants
    assert [(v.name, v.accuracy) for v in variants] == [("m", 0.8), ("v2_big", 0.9), ("m_2", 0.7)]


def test_a_model_is_added_once(tmp_path: Path, outside: Path) -> None:
    graph = tmp_path / "app"
    with pytest.raises(InputError, match="the variant 'm' has this model already"):
        add_models([outside / "m.onnx", outside / "m.onnx"], task="classify", graph=graph)
    assert not graph.exists()
    add_models([outside / "m.onnx"], task="classify", graph=graph)
    before = contents(graph)
    with pytest.raises(InputError, match="the variant 'm' has this model already; change 'm' in the file instead"):
        add_models([outside / "m.onnx"], task="classify", graph=graph)
    assert contents(graph) == before
    add_models([outside / "m.onnx"], task="again", graph=graph)


def test_an_input_may_come_from_another_task(tmp_path: Path, outside: Path) -> None:
    content = model([node("Identity", ["LABEL"], "Y")], [tensor("LABEL", INT64, ["N"])], [tensor("Y", INT64, ["N", 1])])
    (outside / "second.onnx").write_bytes(content)
    graph = tmp_path / "app"
    add_models([outside / "m.onnx"], task="classify", graph=graph)
    added = add_models([outside / "second.onnx"], task="second", graph=graph, inputs={"LABEL": "classify.LABEL"})
    task = added.graph.tasks["second"]
    assert task.inputs == {"LABEL": TensorRef("classify", "LABEL")}
    assert task.scalar_inputs == {"LABEL"}
    assert list(added.graph.inputs) == ["X"]


def test_defaults_and_outputs_that_are_no_tensors_are_left_out(tmp_path: Path) -> None:
    content = model(
        [node("Add", ["X", "STEP"], "Y")],
        [X, tensor("STEP", INT64, [1])],
        [tensor("Y", FLOAT, ["N", 4]), sequence("MAPS")],
        constants=[constant("STEP", [1])],
    )
    (tmp_path / "m.onnx").write_bytes(content)
    added = add_models([tmp_path / "m.onnx"], task="t", graph=tmp_path)
    assert (list(added.graph.tasks["t"].inputs), list(added.graph.tasks["t"].outputs)) == (["X"], ["Y"])
    assert "input STEP has a default and is left out" in added.notes
    assert "output MAPS is left out, because it is no tensor of a type that Triton has" in added.notes


def test_a_batch_dimension_that_does_not_vary_is_noted(tmp_path: Path) -> None:
    inputs, outputs = [tensor("X", FLOAT, [1, 4])], [tensor("Y", FLOAT, [1, 4])]
    (tmp_path / "m.onnx").write_bytes(model([node("Identity", ["X"], "Y")], inputs, outputs))
    added = add_models([tmp_path / "m.onnx"], task="t", graph=tmp_path)
    (note,) = (note for note in added.notes if "batch" in note)
    assert "m.onnx takes X with a batch dimension of 1, so no other batch size can be used; export" in note
    (tmp_path / "one.py").write_text(CODE.replace("return", "assert len(inputs['X']) == 1\n        return"))
    added = add_models([tmp_path / "one.py"], task="u", graph=tmp_path, samples={"X": np.ones(3, np.float32)})
    (note,) = (note for note in added.notes if "batch" in note)
    assert "one.py fails on a batch of 2, so only a batch size of 1 can be used: AssertionError" in note


def test_files_with_weights_come_along(tmp_path: Path, outside: Path) -> None:
    content = model([node("Add", ["X", "W"], "LABEL")], [X], [LABEL], constants=[external("W", "w.data")])
    (outside / "m.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"w\.data: there is no such file; it belongs to the model"):
        add_models([outside / "m.onnx"], task="t", graph=tmp_path / "app")
    assert not (tmp_path / "app").exists()
    (outside / "w.data").write_bytes(b"weights")
    added = add_models([outside / "m.onnx"], task="t", graph=tmp_path / "app")
    artifacts = added.graph.tasks["t"].variants[0].artifacts
    assert artifacts.keys() == {"model.onnx", "w.data"}
    assert artifacts["w.data"].read_bytes() == b"weights"


def exported(folder: Path, given: str, made: str) -> Path:
    """Writes a model with such names of its tensors."""
    content = model(
        [node("Identity", [given], made)], [tensor(given, FLOAT, ["N", 4])], [tensor(made, FLOAT, ["N", 4])]
    )
    (folder / "exported.onnx").write_bytes(content)
    return folder / "exported.onnx"


def test_names_of_exporters_are_replaced_in_a_copy(tmp_path: Path, outside: Path) -> None:
    added = add_models([exported(outside, "input.1", "495")], task="t", graph=tmp_path / "app")
    task = added.graph.tasks["t"]
    assert (list(task.inputs), list(task.outputs)) == (["input_1"], ["output_495"])
    assert "in models/exported-renamed.onnx 'input.1' is called input_1, '495' is called output_495" in added.notes
    assert [path.name for path in added.copied] == ["exported-renamed.onnx"]
    assert jt.check_models(tmp_path / "app") == []


def test_a_model_of_another_exporter_becomes_a_variant(tmp_path: Path, outside: Path) -> None:
    graph = tmp_path / "app"
    add_models([exported(outside, "X", "Y")], task="t", graph=graph)
    other = exported(tmp_path, "images", "495")
    with pytest.raises(InputError, match="give the model's tensors the names of t with --rename OLD=NEW, or use"):
        add_models([other], task="t", graph=graph)
    added = add_models([other], task="t", graph=graph, rename={"images": "X", "495": "Y"})
    assert added.variants == ("exported_2",)
    assert jt.check_models(graph) == []


def test_only_tensors_of_onnx_models_are_renamed(tmp_path: Path) -> None:
    (tmp_path / "sum.py").write_text(CODE)
    samples = {"X": np.ones(3, np.float32)}
    with pytest.raises(InputError, match="only the tensors of ONNX models can be renamed; change the names"):
        add_models([tmp_path / "sum.py"], task="t", graph=tmp_path, samples=samples, rename={"X": "Y"})
    with pytest.raises(InputError, match=r"exported\.onnx: the model has no 'A'; it has X, Y"):
        add_models([exported(tmp_path, "X", "Y")], task="t", graph=tmp_path, rename={"A": "B"})
    assert not (tmp_path / "graph.yaml").exists()


CODE = """\
class Model:
    def __init__(self, folder, parameters, threads):
        pass

    def __call__(self, inputs):
        return {"SUM": inputs["X"].sum(axis=1), "SAME": inputs["X"]}
"""


def test_a_python_class_is_run_on_a_sample(tmp_path: Path) -> None:
    (tmp_path / "sum.py").write_text(CODE)
    with pytest.raises(InputError, match="the inputs of such a model are not in its file; give an item of each input"):
        add_models([tmp_path / "sum.py"], task="t", graph=tmp_path)
    samples = {"X": np.ones(3, np.float32)}
    added = add_models([tmp_path / "sum.py"], task="t", graph=tmp_path, samples=samples)
    task = added.graph.tasks["t"]
    assert added.graph.inputs["X"].type == TensorType("FP32", (3,))
    assert task.outputs == {"SUM": TensorType("FP32", (1,)), "SAME": TensorType("FP32", (3,))}
    assert task.scalar_outputs == {"SUM"}
    # A further variant of the task needs no sample.
    (tmp_path / "other.py").write_text(CODE)
    more = add_models([tmp_path / "other.py"], task="t", graph=tmp_path)
    assert [v.name for v in more.graph.tasks["t"].variants] == ["sum", "other"]


def test_parameters_are_passed_to_the_run_and_written(tmp_path: Path) -> None:
    (tmp_path / "sum.py").write_text(CODE.replace("pass", "assert parameters == {'scale': '0.5', 'mode': 'yes'}"))
    samples = {"X": np.ones(3, np.float32)}
    parameters = {"scale": "0.5", "mode": "yes"}
    added = add_models([tmp_path / "sum.py"], task="t", graph=tmp_path, samples=samples, parameters=parameters)
    assert added.graph.tasks["t"].variants[0].parameters == parameters


def test_files_that_a_class_reads_come_along(tmp_path: Path, outside: Path) -> None:
    file, weights = outside / "sum.py", outside / "w.txt"
    file.write_text(CODE.replace("pass", "(folder / 'w.txt').read_text()"))
    samples = {"X": np.ones(3, np.float32)}
    with pytest.raises(InputError, match=r"FileNotFoundError: .*; correct the model; name each file .* with --file"):
        add_models([file], task="t", graph=tmp_path / "app", samples=samples)
    with pytest.raises(InputError, match=r"w\.txt: there is no such file; correct --file"):
        add_models([file], task="t", graph=tmp_path / "app", samples=samples, files=[weights])
    weights.write_text("1")
    added = add_models([file], task="t", graph=tmp_path / "app", samples=samples, files=[weights])
    (variant,) = added.graph.tasks["t"].variants
    assert variant.artifacts["w.txt"] == (tmp_path / "app" / "models" / "sum" / "w.txt").resolve()


def test_a_further_file_must_have_a_name_of_its_own(tmp_path: Path, outside: Path) -> None:
    (outside / "model.onnx").write_bytes(b"another")
    with pytest.raises(InputError, match=r"the model has another file model\.onnx; add models"):
        add_models([outside / "m.onnx"], task="t", graph=tmp_path / "app", files=[outside / "model.onnx"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pass", "import os; os.abort()", r"the model ends its process \(signal SIGABRT\)"),
        ("pass", "raise OSError('disk')", "the model cannot be loaded: OSError: disk"),
        (
            "return",
            "raise OSError('disk')\n        return",
            "the model fails on the sample: OSError: disk; correct --s",
        ),
        ("pass", "import no_such_module", "the Python package no_such_module is not installed"),
    ],
)
def test_a_model_that_fails_is_not_added(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "sum.py").write_text(CODE.replace(old, new))
    with pytest.raises(jt.JigsawError, match=message):
        add_models([tmp_path / "sum.py"], task="t", graph=tmp_path, samples={"X": np.ones(3, np.float32)})
    assert not (tmp_path / "graph.yaml").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_outputs_of_torchscript_are_counted_if_they_have_no_names(tmp_path: Path) -> None:
    import torch

    class Both(torch.nn.Module):
        def forward(self, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return 2 * a, a.sum(1)

    torch.jit.script(Both()).save(str(tmp_path / "both.pt"))  # type: ignore[no-untyped-call]
    added = add_models([tmp_path / "both.pt"], task="t", graph=tmp_path, samples={"a": np.ones(3, np.float32)})
    task = added.graph.tasks["t"]
    assert list(task.outputs) == ["OUTPUT__0", "OUTPUT__1"]
    assert task.scalar_outputs == {"OUTPUT__1"}
    assert jt.check_models(tmp_path) == []


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
def test_a_hugging_face_model_is_added(tmp_path: Path) -> None:
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
    assert jt.check_models(tmp_path / "app") == []


@pytest.mark.slow
@pytest.mark.skipif(find_spec("transformers") is None, reason="the extra `transformers` is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_results_that_differ_in_number_have_a_dimension_that_varies(tmp_path: Path) -> None:
    add_models([save_bert(tmp_path / "bert", "BertForTokenClassification")], task="t", graph=tmp_path / "app")
    task = jt.load_graph(tmp_path / "app").tasks["t"]
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no model", "this is not an ONNX model"),
        (model([], [X], [sequence("MAPS")]), "the model has no output that Triton can carry; export the model with"),
        (model([], [tensor("X", FLOAT, None)], [LABEL]), "the tensor has a shape that the file does not say"),
        (model([], [tensor("X", FLOAT, [])], [LABEL]), "the tensor has no batch dimension"),
        (model([], [tensor("X", 99, ["N"])], [LABEL]), "the input is no tensor of a type that Triton has"),
    ],
)
def test_a_model_that_cannot_be_declared_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InputError, match=message):
        add_models([tmp_path / "m.onnx"], task="t", graph=tmp_path / "app")
    assert not (tmp_path / "app").exists()


def test_a_name_that_cannot_be_declared_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sum.py").write_text(CODE.replace('"SUM"', '"S.M"'))
    message = "the tensor 'S.M' has a name that graph.yaml cannot have; change the model to use names of a letter"
    with pytest.raises(InputError, match=message):
        add_models([tmp_path / "sum.py"], task="t", graph=tmp_path, samples={"X": np.ones(3, np.float32)})


def test_models_that_differ_are_refused_and_nothing_is_changed(tmp_path: Path, outside: Path) -> None:
    outputs = [tensor("LABEL", FLOAT, ["N"]), tensor("SCORES", FLOAT, ["N", 4])]
    (outside / "other.onnx").write_bytes(model([], [X], outputs))
    app = tmp_path / "app"
    app.mkdir()
    (app / "graph.yaml").write_text(COMMENTED)
    before = contents(app)
    with pytest.raises(
        InputError, match=r"other\.onnx returns 'LABEL' as FP32 \[\], but t declares INT64 \[\]; give the"
    ):
        add_models([outside / "m.onnx", outside / "other.onnx"], task="t", graph=app)
    assert contents(app) == before
    assert not (app / "models").exists()


@pytest.mark.parametrize(
    ("old", "new"), [(b"LABEL", b"LEBAL"), (classifier(), model([], [tensor("X", INT64, ["N", 4])], [LABEL]))]
)
def test_a_further_variant_does_not_ask_to_change_the_task(
    tmp_path: Path, outside: Path, old: bytes, new: bytes
) -> None:
    add_models([outside / "m.onnx"], task="t", graph=tmp_path / "app")
    (outside / "m2.onnx").write_bytes(classifier().replace(old, new))
    with pytest.raises(InputError) as raised:
        add_models([outside / "m2.onnx"], task="t", graph=tmp_path / "app")
    hint = "give the model's tensors the names of t with --rename OLD=NEW, or use another task name; variants of t have"
    assert raised.value.hint == f"{hint} the same inputs and outputs"


def test_a_further_class_must_return_the_outputs_of_the_task(tmp_path: Path) -> None:
    (tmp_path / "sum.py").write_text(CODE)
    add_models([tmp_path / "sum.py"], task="t", graph=tmp_path, samples={"X": np.ones(3, np.float32)})
    (tmp_path / "other.py").write_text(CODE.replace("SUM", "TOTAL"))
    with pytest.raises(InputError, match=r"other\.py has no output 'SUM'; use another task name"):
        add_models([tmp_path / "other.py"], task="t", graph=tmp_path)


def test_an_input_from_a_tensor_of_another_type_is_explained(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "graph.yaml").write_text(COMMENTED)
    (outside / "m2.onnx").write_bytes(classifier())
    with pytest.raises(SpecError, match=r"m\.onnx takes 'X' as FP32"):
        add_models([outside / "m.onnx", outside / "m2.onnx"], task="t", graph=tmp_path, inputs={"X": "inputs.IMAGE"})


def test_an_interrupt_leaves_everything_as_it_was(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add_models([outside / "m.onnx"], task="t", graph=tmp_path / "deep" / "app")
    assert not (tmp_path / "deep").exists()


def test_an_unrelated_file_is_never_overwritten(tmp_path: Path, outside: Path) -> None:
    app = tmp_path / "app"
    (app / "models").mkdir(parents=True)
    (app / "models" / "m.onnx").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"m\.onnx: another file is there already; rename m\.onnx"):
        add_models([outside / "m.onnx"], task="t", graph=app)
    assert contents(app) == {"models/m.onnx": b"mine"}


def test_a_copy_does_not_follow_a_link_to_nothing(tmp_path: Path, outside: Path) -> None:
    link, target = tmp_path / "app" / "models" / "m.onnx", tmp_path / "later.onnx"
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    with pytest.raises(InputError, match=r"m\.onnx: another file is there already; rename m\.onnx"):
        add_models([outside / "m.onnx"], task="t", graph=tmp_path / "app")
    assert link.readlink() == target
    assert not target.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accuracy": [1, 2]}, "there are 1 models, but 2 accuracies"),
        ({"accuracy": [math.nan]}, "an accuracy is not a positive number; write the measured one"),
        ({"accuracy": [math.inf]}, "an accuracy is not a positive number; write the measured one"),
        ({"inputs": {"Z": "inputs.X"}}, "the model has no input 'Z'; the model has X FP32"),
        ({"inputs": {"X": "nothing.X"}}, "there is no task 'nothing'"),
        ({"task": "first", "inputs": {"X": "inputs.X"}}, "the task exists, with inputs of its own"),
        ({"task": "first"}, "m.onnx needs|m.onnx has no input 'IMAGE'"),
        ({"task": "a b"}, "'a b' is not a valid name"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    tmp_path: Path, outside: Path, options: dict[str, object], message: str
) -> None:
    (tmp_path / "graph.yaml").write_text(COMMENTED)
    with pytest.raises(InputError, match=message):
        add_models([outside / "m.onnx"], graph=tmp_path, **{"task": "t", **options})  # type: ignore[arg-type]
    assert (tmp_path / "graph.yaml").read_text() == COMMENTED


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be found; give a file that ends with \.onnx, \.pt"):
        add_models([tmp_path / "m.plan"], task="t", graph=tmp_path)
    with pytest.raises(InputError, match=r"m\.onnx: there is no such file"):
        add_models([tmp_path / "m.onnx"], task="t", graph=tmp_path)
    with pytest.raises(InputError, match=r"the folder has no config\.pbtxt of Triton, and no config\.json of Hugging"):
        add_models([tmp_path], task="t", graph=tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="this cannot be written"):
        add_models([outside / "m.onnx"], task="t", graph=tmp_path / "file" / "app" / GRAPH_FILE)
