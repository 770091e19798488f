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


def deploy_copy(system: System, folder: Path, application: str, golden_file: str) -> Any:
    """Deploys a copy of an application as a user would: init, an edit of graph.yaml, deploy.

    The edit keeps the variants that made the golden answer, and allows a minute for it: the machine may be busy.

    Returns:
        Content of the golden file.
    """
    made = system.run("init", folder, "--from", application)
    if "could not be downloaded" in made.err:
        pytest.skip(f"{application}'s weights are not in the cache, and no network brings them")
    assert made.code == 0, made.err
    document = golden(folder, golden_file)
    graph = yaml.safe_load((folder / "graph.yaml").read_text())
    for name, task in graph["spec"]["tasks"].items():
        task["variants"] = [v for v in task["variants"] if v["name"] == document["expected"][name]]
    graph["spec"].pop("combinations", None)
    graph["spec"]["slo"]["latency_ms"] = 60_000
    (folder / "graph.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
    system.deploy(folder, "--gpus", "1xcpu", "--demand", 1)
    return document["expected"]


def test_a_copy_of_docread_reads_its_golden_page(system: System, tmp_path: Path) -> None:
    folder = tmp_path / "reader"
    expected = deploy_copy(system, folder, "docread", "page.json")
    with Client(system, "http") as client:
        answer = client.ask("docread", {"IMAGE": golden(folder, "page.npy")[None]}, ("BOXES", "TEXT", "SCORE"))
    assert [text.decode() for text in answer["TEXT"][0, :, 0]] == [line["text"] for line in expected["lines"]]
    assert answer["BOXES"][0] == pytest.approx(np.array([line["box"] for line in expected["lines"]]), abs=1)
    assert answer["SCORE"].shape == (1, len(expected["lines"]), 1)


def test_a_copy_of_traffic_cpu_answers_its_golden_scene(system: System, tmp_path: Path) -> None:
    """A frame has plates and faces, a bare one has neither: the two branches have other numbers of rows."""
    folder = tmp_path / "crossing"
    expected = deploy_copy(system, folder, "traffic-cpu", "scene.json")
    names = ("PLATE_BOXES", "TEXT", "TEXT_SCORE", "FACE_BOXES", "FACE_SCORE")
    scene = golden(folder, "scene.npy")
    with Client(system, "http") as client:
        answer = client.ask("traffic-cpu", {"FRAME": scene[None]}, names)
        bare = client.ask("traffic-cpu", {"FRAME": np.zeros_like(scene)[None]}, names)
    for name in ("PLATE_BOXES", "FACE_BOXES"):
        assert answer[name][0] == pytest.approx(np.array(expected[name]), abs=2)
    assert [text.decode() for text in answer["TEXT"][0, :, 0]] == expected["TEXT"]
    assert answer["FACE_SCORE"][0, :, 0] == pytest.approx(np.array(expected["FACE_SCORE"]), abs=0.02)
    assert [bare[name].shape[:2] for name in names] == [(1, 0)] * len(names)
