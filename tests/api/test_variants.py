from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jigsaw_triton as jt
from jigsaw_triton.api import graph_changes
from jigsaw_triton.api import variants as module
from jigsaw_triton.api.adding import add_models
from jigsaw_triton.api.variants import make_variants
from jigsaw_triton.child_process import ChildProcess
from jigsaw_triton.errors import InputError, MissingDependencyError
from tests.fakes.onnx_models import classifier
from tests.fakes.onnx_networks import convolution, exported_for_one, perceptron
from tests.folders import contents

onnx = pytest.importorskip("onnx", reason="the extra `variants` is not installed")
pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.usefixtures("kept_models")

App = Callable[[Any], Path]


@pytest.fixture
def app(tmp_path: Path) -> App:
    """Makes an application of a model, in the folder app; its task is called t, and the model m."""

    def make(model: Any) -> Path:
        onnx.save(model, tmp_path / "m.onnx")
        add_models([tmp_path / "m.onnx"], task="t", graph=tmp_path / "app", accuracy=[0.8])
        return tmp_path / "app"

    return make


def test_variants_are_written_beside_the_model_and_added(app: App) -> None:
    folder = app(perceptron())
    found = make_variants(folder / "models" / "m.onnx", graph=folder, samples={"X": np.eye(16, dtype=np.float32)})
    assert [(v.name, v.file) for v in found.made] == [
        (f"m-{kind}", (folder / "models" / f"m-{kind}.onnx").resolve()) for kind in ("int8", "fp16")
    ]
    assert {v.kind: v.reason for v in found.not_made} == {
        "resize": "no input is an image, [N, C, H, W] or [N, H, W, C] with C of (1, 3, 4)",
        "batch": "the batch dimension varies already",
    }
    graph = jt.load_graph(folder, require_files=True)
    assert graph == found.graph
    original, int8, fp16 = graph.tasks["t"].variants
    for variant, made in zip((int8, fp16), found.made, strict=True):
        assert made.agreement.items == 16
        assert made.agreement.metric == "top-1"
        assert variant.accuracy == pytest.approx(original.accuracy * made.agreement.value)
        assert made.size_bytes < original.artifacts["model.onnx"].stat().st_size
    assert jt.check_models(folder) == []
    text = (folder / "graph.yaml").read_text()
    assert "# accuracy of m times the agreement with it: top-1 agreement 1 on 16 items (your samples)\n" in text


def test_a_model_for_one_image_becomes_smaller_and_takes_batches(app: App) -> None:
    folder = app(convolution(batch=1))
    found = make_variants(
        folder / "models" / "m.onnx", graph=folder, kinds=["resize", "batch"], scales=[0.75, 0.5], least_agreement=0.01
    )
    assert [v.name for v in found.made] == ["m-resize75", "m-resize50", "m-batch"]
    assert found.made[2].agreement.value == 1
    assert found.items == "random data"
    notes = jt.check_models(folder)
    # The original and the smaller ones take one item; the last takes batches.
    assert [note.split()[0] for note in notes] == ["t.m", "t.m-resize75", "t.m-resize50"]
    assert all("fails on a batch of 2" in note for note in notes)


def test_a_conversion_that_fails_is_named_and_leaves_nothing(app: App) -> None:
    folder = app(convolution(flat=True))
    before = contents(folder)
    found = make_variants(folder / "models" / "m.onnx", graph=folder, kinds=["resize"])
    ((kind, reason),) = [(v.kind, v.reason) for v in found.not_made]
    assert kind == "resize"
    assert reason.startswith("it cannot be loaded: ")
    assert (found.made, contents(folder)) == ((), before)


def test_a_variant_that_agrees_too_little_is_left_out(app: App) -> None:
    folder = app(perceptron())
    before = contents(folder)
    found = make_variants(
        folder / "models" / "m.onnx", graph=folder, kinds=["int8"], metric="error", least_agreement=0.99999
    )
    (variant,) = found.not_made
    assert variant.reason.startswith("mean error 0.0")
    assert variant.reason.endswith("on 64 items is less than 0.99999 (random data)")
    assert contents(folder) == before


def test_variants_that_exist_are_not_made_again(app: App) -> None:
    folder = app(perceptron())
    make_variants(folder / "models" / "m.onnx", graph=folder, kinds=["fp16"])
    before = contents(folder)
    found = make_variants(folder / "models" / "m.onnx", graph=folder, kinds=["fp16"])
    assert [(v.reason, v.present) for v in found.not_made] == [("the variant 'm-fp16' exists already", True)]
    assert contents(folder) == before


@pytest.mark.parametrize("allowed", [True, False])
def test_a_file_is_replaced_only_if_the_user_says_so(app: App, allowed: bool) -> None:
    folder = app(perceptron())
    file = folder / "models" / "m-fp16.onnx"
    file.write_bytes(b"mine")
    asked = []

    def overwrite(path: Path) -> bool:
        asked.append(path.name)
        return allowed

    found = make_variants(folder / "models" / "m.onnx", graph=folder, kinds=["fp16"], overwrite=overwrite)
    assert asked == ["m-fp16.onnx"]
    assert (file.read_bytes() != b"mine") is allowed
    assert bool(found.made) is allowed
    if not allowed:
        assert found.not_made[0].reason.endswith("m-fp16.onnx exists; --overwrite replaces it")
    assert {path.name for path in file.parent.iterdir()} == {"m.onnx", "m-fp16.onnx"}


def test_nothing_is_changed_if_the_graph_cannot_be_written(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = app(perceptron())
    (folder / "models" / "m-fp16.onnx").write_bytes(b"mine")
    before = contents(folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(graph_changes, "replace_text", full)
    with pytest.raises(InputError, match=r"this cannot be written \(No space left on device\)"):
        make_variants(folder / "models" / "m.onnx", graph=folder, overwrite=lambda _: True)
    assert contents(folder) == before


def test_a_model_for_batches_of_eight_takes_others(app: App) -> None:
    folder = app(perceptron(batch=8))
    found = make_variants(folder / "models" / "m.onnx", graph=folder, kinds=["fp16", "batch"])
    assert [(v.name, v.agreement.items) for v in found.made] == [("m-fp16", 64), ("m-batch", 64)]
    assert found.made[1].agreement.mean_error == pytest.approx(0, abs=1e-5)


def test_what_the_user_writes_meanwhile_is_kept(app: App) -> None:
    folder = app(perceptron())
    file = folder / "graph.yaml"
    before = contents(folder)

    def edit(_: str) -> None:
        file.write_text(file.read_text().replace("accuracy: 0.8", "accuracy: 0.7"))

    with pytest.raises(InputError, match=r"graph\.yaml: the file has changed since the command read it; repeat"):
        make_variants(folder / "models" / "m.onnx", graph=folder, kinds=["fp16"], progress=edit)
    edited = before["graph.yaml"].replace(b"accuracy: 0.8", b"accuracy: 0.7")
    assert contents(folder) == {**before, "graph.yaml": edited}


def test_a_variant_keeps_the_parameters_of_its_original(app: App) -> None:
    folder = app(perceptron())
    file = folder / "graph.yaml"
    file.write_text(file.read_text().replace("m.onnx}}", "m.onnx}, parameters: {a: 1}}"))
    make_variants(folder / "models" / "m.onnx", graph=folder, kinds=["int8"])
    assert [dict(v.parameters) for v in jt.load_graph(folder).tasks["t"].variants] == [{"a": "1"}] * 2


def test_the_samples_of_the_graph_are_used(app: App) -> None:
    folder = app(perceptron())
    np.save(folder / "x.npy", np.ones(16, np.float32))
    file = folder / "graph.yaml"
    file.write_text(file.read_text() + "  sample: {X: x.npy}\n")
    found = make_variants(folder / "models" / "m.onnx", graph=folder, kinds=["fp16"])
    assert (found.items, found.made[0].agreement.items) == ("the graph's samples", 1)


def test_weights_in_another_file_become_a_part_of_the_variant(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    onnx.save(perceptron(), tmp_path / "m" / "m.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    folder = tmp_path / "app"
    add_models([tmp_path / "m" / "m.onnx"], task="t", graph=folder)
    make_variants(folder / "models" / "m.onnx", graph=folder, kinds=["int8", "fp16"])
    variants = jt.load_graph(folder).tasks["t"].variants
    assert [list(variant.artifacts) for variant in variants] == [
        ["model.onnx", "w.data"],
        ["model.onnx"],
        ["model.onnx"],
    ]
    assert jt.check_models(folder) == []


def test_the_model_may_be_the_file_that_was_added(app: App, tmp_path: Path) -> None:
    folder = app(perceptron())
    found = make_variants(tmp_path / "m.onnx", graph=folder, kinds=["fp16"])
    assert found.made[0].file == (folder / "models" / "m-fp16.onnx").resolve()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "none.onnx"}, r"none\.onnx: there is no such file"),
        ({"model": "m.pt"}, r"variants are made of ONNX models only; export the model to ONNX"),
        (
            {"model": "other.onnx"},
            r"no variant in .* has this model; ONNX models in the graph: .*m\.onnx; jigsaw-triton add",
        ),
        ({"task": "u"}, "there is no task 'u'; tasks: t"),
        ({"scales": [1.5], "kinds": ["resize"]}, "the scale 1.5 is not between 0 and 1"),
        ({"scales": [0.5, 0.5001], "kinds": ["resize"]}, "the scales 0.5 and 0.5001 give variants of one name"),
        ({"samples": {"Y": np.ones((2, 16), np.float32)}}, "'X' has no samples; inputs: X|'Y' is not an input of t"),
        ({"samples": {"X": np.ones((2, 15), np.float32)}}, r"X are float32 \[2, 15\], but t takes FP32 \[16\]; save"),
        ({"samples": {"X": np.ones((2, 16))}}, r"the samples of X are float64 \[2, 16\], but t takes FP32"),
        ({"samples": {"X": np.ones((0, 16), np.float32)}}, r"the samples of X are float32 \[0, 16\]"),
    ],
)
def test_bad_input_is_refused(app: App, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = app(perceptron())
    (tmp_path / "other.onnx").write_bytes(classifier())
    (tmp_path / "m.pt").touch()
    before = contents(tmp_path)
    arguments = {"model": "m.onnx", "graph": folder, **change}
    with pytest.raises(InputError, match=message):
        make_variants(tmp_path / arguments.pop("model"), **arguments)
    assert contents(tmp_path) == before


def test_a_model_of_several_tasks_needs_the_task(app: App, tmp_path: Path) -> None:
    folder = app(perceptron())
    add_models([tmp_path / "m.onnx"], task="u", graph=folder)
    with pytest.raises(InputError, match=r"several tasks have this model \(t, u\); choose one with --task"):
        make_variants(tmp_path / "m.onnx", graph=folder, kinds=["fp16"])
    make_variants(tmp_path / "m.onnx", graph=folder, kinds=["fp16"], task="u")
    assert [v.name for v in jt.load_graph(folder).tasks["u"].variants] == ["m", "m-fp16"]


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"onnx, which .* pip install 'jigsaw-triton\[variants\]'"):
        make_variants(tmp_path / "m.onnx", graph=tmp_path)


def test_a_conversion_that_hangs_is_ended_and_the_others_go_on(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = app(perceptron())
    # A new process cannot import its libraries within the timeout.
    monkeypatch.setattr(module, "ChildProcess", ChildProcess)
    monkeypatch.setattr(module, "TIMEOUT_S", 0.01)
    found = make_variants(folder / "models" / "m.onnx", graph=folder, kinds=["int8", "fp16"])
    assert [v.reason for v in found.not_made] == ["its conversion has not ended after 0.01 s"] * 2


def test_a_model_whose_reshape_has_the_batch_size_takes_batches(app: App) -> None:
    folder = app(exported_for_one(reshape=[1, 6]))
    found = make_variants(folder / "models" / "m.onnx", graph=folder, kinds=["batch"])
    assert [(v.name, v.agreement.value) for v in found.made] == [("m-batch", 1.0)]
