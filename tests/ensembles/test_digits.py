"""Tests of digits and digits-strip, with models that are built as for a user."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from jigsaw_triton.applications import fetch_application
from jigsaw_triton.evaluation.accuracy.estimate import estimate
from jigsaw_triton.evaluation.accuracy.metrics import f1
from jigsaw_triton.resources import applications_dir
from tests.ensembles.conftest import Array, Script

CLASSIFIERS = ("linear", "mlp", "cnn_s", "cnn_m")


@pytest.fixture(scope="module", params=["digits", "digits-strip"])
def application(request: pytest.FixtureRequest) -> Path:
    folder: Path = applications_dir() / request.param
    fetch_application(folder, lambda _line: None)
    return folder


@pytest.fixture(scope="module")
def strip_folder() -> Path:
    folder = applications_dir() / "digits-strip"
    fetch_application(folder, lambda _line: None)
    return folder


@pytest.fixture(scope="module")
def strips(script: Script) -> ModuleType:
    return script("digits-strip/strips.py")


@pytest.fixture(scope="module")
def training(script: Script) -> ModuleType:
    return script("digits/training.py")


def variants(folder: Path, task: str) -> dict[str, Any]:
    document = yaml.safe_load((folder / "graph.yaml").read_text())
    return {variant["name"]: variant for variant in document["spec"]["tasks"][task]["variants"]}


def golden(folder: Path, name: str) -> Any:
    path = folder / "golden" / name
    return np.load(path) if path.suffix == ".npy" else json.loads(path.read_text())


def classify(folder: Path, name: str, images: Array) -> tuple[Array, Array]:
    torch = pytest.importorskip("torch")
    with torch.inference_mode():
        digit, scores = torch.jit.load(str(folder / "models" / f"{name}.pt"))(torch.from_numpy(images))
    return digit.numpy(), scores.numpy()


def locator(script: Script, folder: Path, name: str) -> Any:
    parameters = {key: str(value) for key, value in variants(folder, "locate")[name]["parameters"].items()}
    return script(f"digits-strip/models/{name}.py").Model(folder / "models", parameters, 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_accuracy_is_what_graph_yaml_says(application: Path, script: Script, name: str) -> None:
    examples = list(script(f"{application.name}/labels.py").examples())
    if application.name == "digits":
        images = np.stack([example["IMAGE"] / 16 for example in examples])
    else:
        images = np.concatenate([example["locate.DIGITS"] for example in examples])
    labels = np.concatenate([example["classify.DIGIT"].reshape(-1) for example in examples])
    digit, scores = classify(application, name, images)
    assert digit.dtype == np.int64
    assert digit.shape == (len(images), 1)
    assert scores.shape == (len(images), 10)
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-5)
    measured = float((digit[:, 0] == labels).mean())
    assert measured == pytest.approx(variants(application, "classify")[name]["accuracy"], abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaps", "windows"])
def test_locating_is_as_accurate_as_graph_yaml_says(script: Script, strip_folder: Path, name: str) -> None:
    model, found, scores = locator(script, strip_folder, name), 0, []
    for example in script("digits-strip/labels.py").examples():
        columns = model({"STRIP": example["STRIP"][None]})["COLUMN"][0]
        found += len(columns)
        scores.append(f1(columns, example["locate.COLUMN"]))
    yields, variant = found / len(scores), variants(strip_folder, "locate")[name]
    assert estimate(scores).value == pytest.approx(variant["accuracy"], abs=0.01)
    assert variant["yields"] == {"DIGITS": pytest.approx(yields, abs=0.1), "COLUMN": pytest.approx(yields, abs=0.1)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_the_golden_strip_is_read(script: Script, strip_folder: Path) -> None:
    strip, truth = golden(strip_folder, "strip.npy"), golden(strip_folder, "strip.json")
    outputs = locator(script, strip_folder, "windows")({"STRIP": strip[None]})
    assert outputs["COLUMN"].dtype == np.int32
    assert outputs["COLUMN"].tolist() == [truth["COLUMN"]]
    assert outputs["DIGITS"].dtype == np.float32
    assert outputs["DIGITS"].shape == (1, len(truth["DIGIT"]), 8, 8)
    digit, _ = classify(strip_folder, "cnn_m", outputs["DIGITS"][0])
    assert digit[:, 0].tolist() == truth["DIGIT"]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_the_golden_digit_is_read(script: Script) -> None:
    folder = applications_dir() / "digits"
    fetch_application(folder, lambda _line: None)
    normal = script("digits/models/normalise.py").Model(folder, {}, 1)({"IMAGE": golden(folder, "image.npy")[None]})
    digit, _ = classify(folder, "cnn_m", normal["NORMAL"])
    assert int(digit[0, 0]) == golden(folder, "image.json")["DIGIT"]


def test_normalising_keeps_a_batch_and_its_range(script: Script) -> None:
    model = script("digits/models/normalise.py").Model(Path(), {}, 1)
    normal = model({"IMAGE": np.array([0, 8, 16, 99], np.float32).repeat(64).reshape(4, 8, 8)})["NORMAL"]
    assert normal.dtype == np.float32
    assert normal[:, 0, 0].tolist() == [0, 0.5, 1, 1]


@pytest.mark.parametrize("name", ["gaps", "windows"])
@pytest.mark.parametrize("width", [1, 7, 8, 32])
def test_an_empty_strip_has_no_digits(script: Script, strip_folder: Path, name: str, width: int) -> None:
    outputs = locator(script, strip_folder, name)({"STRIP": np.zeros((1, 8, width), np.uint8)})
    assert outputs["DIGITS"].shape == (1, 0, 8, 8)
    assert outputs["COLUMN"].shape == (1, 0)


@pytest.mark.parametrize("name", ["gaps", "windows"])
@pytest.mark.parametrize("width", [1, 5, 8, 100])
def test_a_bright_strip_gives_whole_digits(script: Script, strip_folder: Path, name: str, width: int) -> None:
    outputs = locator(script, strip_folder, name)({"STRIP": np.full((1, 8, width), 255, np.uint8)})
    columns = outputs["COLUMN"][0]
    assert outputs["DIGITS"].shape == (1, len(columns), 8, 8)
    assert ((columns >= 0) & (columns < width)).all()


@pytest.mark.slow
def test_strips_of_a_seed_are_the_same(strips: ModuleType, training: ModuleType) -> None:
    _, testing = training.load()
    first, again, other = (strips.render(seed, testing) for seed in (3, 3, 4))
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)
    assert first.image.dtype == np.uint8
    assert (np.diff(first.columns) >= 8).all()
    assert first.columns[-1] + 8 <= first.image.shape[1]
