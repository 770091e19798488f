"""The ready applications, deployed as a user would, on data with known answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from jigsaw_triton.evaluation.accuracy.estimate import estimate
from jigsaw_triton.evaluation.accuracy.metrics import f1
from jigsaw_triton.resources import applications_dir
from tests.e2e.clients import PROTOCOLS, Client
from tests.e2e.system import System
from tests.ensembles.conftest import Script

pytestmark = pytest.mark.e2e

DIGITS = applications_dir() / "digits"
STRIPS = applications_dir() / "digits-strip"


@pytest.fixture(scope="module")
def served(shared: System) -> System:
    fetched = shared.run("fetch", DIGITS, STRIPS)
    assert fetched.code == 0, fetched.err
    # A lighter variant that takes over a burst would have another accuracy.
    shared.deploy(DIGITS, STRIPS, "--gpus", "2xcpu", "--demand", "digits=50,digits-strip=20", "--standby", "off")
    return shared


def golden(folder: Path, name: str) -> Any:
    path = folder / "golden" / name
    return np.load(path) if path.suffix == ".npy" else json.loads(path.read_text())


def stated_accuracy(system: System, folder: Path, task: str) -> float:
    """Returns the accuracy that graph.yaml states for the variant that serves a task."""
    graph = yaml.safe_load((folder / "graph.yaml").read_text())
    models = [m for worker in system.status()["workers"] for m in worker["models"]]
    (serving,) = {m["variant"] for m in models if (m["graph"], m["task"]) == (graph["metadata"]["name"], task)}
    variants = graph["spec"]["tasks"][task]["variants"]
    return next(float(variant["accuracy"]) for variant in variants if variant["name"] == serving)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_golden_inputs_give_the_golden_outputs(served: System, protocol: str) -> None:
    with Client(served, protocol) as client:
        image = golden(DIGITS, "image.npy").astype(np.float32)[None]
        digit = client.ask("digits", {"IMAGE": image}, ("DIGIT", "SCORES"))
        strip = client.ask("digits-strip", {"STRIP": golden(STRIPS, "strip.npy")[None]}, ("COLUMN", "DIGIT", "SCORES"))
    assert digit["DIGIT"].tolist() == [[golden(DIGITS, "image.json")["DIGIT"]]]
    assert digit["SCORES"].shape == (1, 10)
    truth = golden(STRIPS, "strip.json")
    assert strip["COLUMN"].tolist() == [truth["COLUMN"]]
    assert strip["DIGIT"][0, :, 0].tolist() == truth["DIGIT"]
    assert strip["SCORES"].shape == (1, len(truth["DIGIT"]), 10)


def test_digits_are_classified_as_accurately_as_stated(served: System, script: Script) -> None:
    _, testing = script("digits/training.py").load()
    with Client(served, "grpc") as client:
        batches = np.array_split(testing.images, 15)
        found = [client.ask("digits", {"IMAGE": batch}, ("DIGIT",))["DIGIT"][:, 0] for batch in batches]
    measured = float((np.concatenate(found) == testing.labels).mean())
    assert measured == pytest.approx(stated_accuracy(served, DIGITS, "classify"), abs=0.002)


def test_strips_are_read_as_accurately_as_stated(served: System, script: Script) -> None:
    made = list(script("digits-strip/labels.py").examples())
    with Client(served, "grpc") as client:
        answers = [client.ask("digits-strip", {"STRIP": strip["STRIP"][None]}, ("COLUMN", "DIGIT")) for strip in made]
    scores = [f1(answer["COLUMN"][0], strip["locate.COLUMN"]) for strip, answer in zip(made, answers, strict=True)]
    assert estimate(scores).value == pytest.approx(stated_accuracy(served, STRIPS, "locate"), abs=0.002)
    right = []
    for strip, answer in zip(made, answers, strict=True):
        _, true, found = np.intersect1d(strip["locate.COLUMN"], answer["COLUMN"][0], return_indices=True)
        right += (strip["classify.DIGIT"][true, 0] == answer["DIGIT"][0, found, 0]).tolist()
    assert np.mean(right) == pytest.approx(stated_accuracy(served, STRIPS, "classify"), abs=0.01)


def test_a_copy_of_docread_reads_its_golden_page(system: System, tmp_path: Path) -> None:
    """The test runs init, edits graph.yaml and deploys. The edit keeps the variants that made the golden answer."""
    folder = tmp_path / "reader"
    made = system.run("init", folder, "--from", "docread")
    if "could not be downloaded" in made.err:
        pytest.skip("docread's weights are not in the cache, and no network brings them")
    assert made.code == 0, made.err
    page = golden(folder, "page.json")["expected"]
    graph = yaml.safe_load((folder / "graph.yaml").read_text())
    for name, task in graph["spec"]["tasks"].items():
        task["variants"] = [variant for variant in task["variants"] if variant["name"] == page[name]]
    graph["spec"].pop("combinations", None)
    (folder / "graph.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
    system.deploy(folder, "--gpus", "1xcpu", "--demand", 1)
    with Client(system, "http") as client:
        answer = client.ask("docread", {"IMAGE": golden(folder, "page.npy")[None]}, ("BOXES", "TEXT", "SCORE"))
    assert [text.decode() for text in answer["TEXT"][0, :, 0]] == [line["text"] for line in page["lines"]]
    assert answer["BOXES"][0] == pytest.approx(np.array([line["box"] for line in page["lines"]]), abs=1)
    assert answer["SCORE"].shape == (1, len(page["lines"]), 1)
