import math
from pathlib import Path

import numpy as np
import pytest

import jigsaw_triton as jt
from jigsaw_triton.api.adding import add_models
from jigsaw_triton.api.graph_changes import GRAPH_FILE
from jigsaw_triton.errors import InputError, SpecError
from jigsaw_triton.graph.tensors import TensorRef, TensorType
from tests.api.test_adding_classes import CODE
from tests.api.test_adding_entries import CONFIG, entry
from tests.fakes.onnx_models import FLOAT, INT64, classifier, constant, external, model, node, sequence, tensor
from tests.folders import contents

pytestmark = pytest.mark.usefixtures("kept_models")

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


def test_a_further_file_must_have_a_name_of_its_own(tmp_path: Path, outside: Path) -> None:
    (outside / "model.onnx").write_bytes(b"another")
    with pytest.raises(InputError, match=r"the model has another file model\.onnx; add models"):
        add_models([outside / "m.onnx"], task="t", graph=tmp_path / "app", files=[outside / "model.onnx"])


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
