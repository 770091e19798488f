"""Tests of traffic-cpu on its golden scene, with its real weights."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from itertools import combinations
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jigsaw_triton.api.files import load_graph
from jigsaw_triton.applications import missing_artifacts
from jigsaw_triton.resources import applications_dir
from tests.ensembles.conftest import Array, CallModel, Load, Script

FOLDER = applications_dir() / "traffic-cpu"

pytestmark = pytest.mark.skipif(
    bool(missing_artifacts(FOLDER)), reason="weights are missing: run `jigsaw-triton fetch ensembles/traffic-cpu`"
)


LoadTask = Callable[[str, str], CallModel]
"""Function that loads the model of a task's variant."""


@pytest.fixture(scope="module")
def load(load_model: Load) -> LoadTask:
    return partial(load_model, "traffic-cpu")


@pytest.fixture(scope="module")
def labels(script: Script) -> ModuleType:
    return script("traffic-cpu/labels.py")


@pytest.fixture(scope="module")
def scene() -> Array:
    array: Array = np.load(FOLDER / "golden" / "scene.npy")
    return array


@pytest.fixture(scope="module")
def golden() -> Any:
    return json.loads((FOLDER / "golden" / "scene.json").read_text())


@pytest.fixture(scope="module")
def found(load: LoadTask, scene: Array) -> Mapping[str, Array]:
    return load("detect", "side_640")({"IMAGE": scene[None]})


@pytest.fixture
def scenes(script: Script, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Module `scenes` with plain backgrounds in place of scikit-image's photographs."""
    module = script("traffic-cpu/scenes.py")
    grey, coloured = np.full((300, 400), 90, np.uint8), np.full((700, 500, 3), 120, np.uint8)
    photos = {name: lambda n=number: (grey, coloured)[n % 2] for number, name in enumerate(module.BACKGROUNDS)}
    monkeypatch.setattr(module, "_skimage", lambda: SimpleNamespace(**photos))
    return module


def true_boxes(golden: Any) -> dict[str, list[list[float]]]:
    truth = golden["truth"]
    return {"PLATE_BOXES": [plate["box"] for plate in truth["plates"]], "FACE_BOXES": truth["faces"]}


def test_scenes_of_a_seed_are_the_same_and_their_parts_are_apart(scenes: ModuleType) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (2, 3, 25, 25), np.uint8)
    for seed in range(6):
        scene, again = (scenes.render(seed, *pictures) for _ in range(2))
        assert np.array_equal(scene.image, again.image)
        assert scene.plates == again.plates
        assert scene.image.shape == (480, 640, 3)
        boxes = [*(plate.box for plate in scene.plates), *scene.faces, *scene.others]
        for x0, y0, x1, y1 in boxes:
            assert 0 <= x0 < x1 <= 640
            assert 0 <= y0 < y1 <= 480
        for a, b in combinations(boxes, 2):
            assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
        assert all(len(plate.text) == 7 and plate.text.isalnum() for plate in scene.plates)
    assert not np.array_equal(scenes.render(0, *pictures).image, scenes.render(1, *pictures).image)


def test_the_golden_scene_is_one_scene_in_two_formats(scene: Array) -> None:
    assert np.array_equal(np.asarray(Image.open(FOLDER / "golden" / "scene.png").convert("RGB")), scene)


@pytest.mark.parametrize("name", ["side_320", "side_480", "side_640"])
def test_every_variant_finds_the_plates_and_faces_of_the_golden_scene(
    load: LoadTask, labels: ModuleType, scene: Array, golden: Any, name: str
) -> None:
    outputs = load("detect", name)({"IMAGE": scene[None]})
    for boxes, true in true_boxes(golden).items():
        assert len(labels.matches(outputs[boxes][0], true)) == len(true)
    assert outputs["PLATES"].shape == (1, outputs["PLATE_BOXES"].shape[1], 48, 256, 3)
    assert outputs["FACES"].shape == (1, outputs["FACE_BOXES"].shape[1], 48, 48, 3)


@pytest.mark.parametrize("name", ["v6_tiny", "v6_small"])
def test_every_variant_reads_the_plates_of_the_golden_scene(
    load: LoadTask, found: Mapping[str, Array], golden: Any, name: str
) -> None:
    read = load("plates", name)({"PLATE": found["PLATES"][0]})
    assert [text.decode() for text in read["TEXT"][:, 0]] == golden["expected"]["TEXT"]
    assert {plate["text"] for plate in golden["truth"]["plates"]} == set(golden["expected"]["TEXT"])
    assert read["SCORE"].dtype == np.float32
    assert 0.8 < read["SCORE"].min() <= 1


@pytest.mark.parametrize("name", ["rnet", "onet"])
def test_every_variant_tells_the_faces_of_the_golden_scene_from_other_places(
    load: LoadTask, scene: Array, found: Mapping[str, Array], name: str
) -> None:
    model = load("faces", name)
    assert (model({"FACE": found["FACES"][0]})["SCORE"] > 0.9).all()
    others = np.stack([scene[y : y + 48, x : x + 48] for x in (0, 240) for y in (0, 150, 400)])
    assert (model({"FACE": others})["SCORE"] < 0.2).all()


def test_the_expected_answer_is_what_its_variants_give(load: LoadTask, found: Mapping[str, Array], golden: Any) -> None:
    expected = golden["expected"]
    assert expected["detect"] == "side_640"
    for name in ("PLATE_BOXES", "FACE_BOXES"):
        assert found[name][0] == pytest.approx(np.array(expected[name]), abs=2)
    scores = load("faces", expected["faces"])({"FACE": found["FACES"][0]})["SCORE"][:, 0]
    assert scores == pytest.approx(np.array(expected["FACE_SCORE"]), abs=0.02)


@pytest.mark.parametrize("shape", [(32, 32), (1, 1), (5, 3000), (77, 131)])
def test_an_empty_frame_has_no_plates_and_no_faces(load: LoadTask, shape: tuple[int, int]) -> None:
    outputs = load("detect", "side_320")({"IMAGE": np.zeros((1, *shape, 3), np.uint8)})
    assert {name: array.shape[:2] for name, array in outputs.items()} == dict.fromkeys(outputs, (1, 0))
    read = load("plates", "v6_tiny")({"PLATE": outputs["PLATES"][0]})
    assert [read[name].shape for name in ("TEXT", "SCORE")] == [(0, 1), (0, 1)]
    assert load("faces", "rnet")({"FACE": outputs["FACES"][0]})["SCORE"].shape == (0, 1)


def test_a_frame_without_pixels_is_refused(load: LoadTask) -> None:
    with pytest.raises(ValueError, match="IMAGE is empty"):
        load("detect", "side_320")({"IMAGE": np.zeros((1, 0, 10, 3), np.uint8)})


@pytest.mark.parametrize(("task", "variant"), [("plates", "v6_tiny"), ("faces", "rnet"), ("faces", "onet")])
def test_rows_alone_and_in_a_batch_give_the_same(
    load: LoadTask, found: Mapping[str, Array], task: str, variant: str
) -> None:
    model = load(task, variant)
    name, rows = ("PLATE", found["PLATES"][0]) if task == "plates" else ("FACE", found["FACES"][0])
    together = model({name: rows})["SCORE"]
    assert together == pytest.approx(np.concatenate([model({name: row[None]})["SCORE"] for row in rows]), abs=1e-4)


def test_a_box_is_matched_once_and_with_its_best_partner(labels: ModuleType) -> None:
    true = [(0, 0, 10, 10), (50, 0, 60, 10)]
    boxes = np.array([[2, 0, 12, 10], [0, 0, 10, 11], [50, 0, 80, 10]], np.float32)
    assert labels.matches(boxes, true) == [(1, 0)]
    assert labels.matches(boxes[:0], true) == []


def test_the_metrics_count_right_boxes_texts_and_pictures(labels: ModuleType, scenes: ModuleType) -> None:
    plates = (scenes.Plate("AB12CDE", (0, 0, 10, 10)), scenes.Plate("XY34ZAB", (50, 0, 60, 10)))
    truth = {"plates": plates, "faces": [(20, 20, 40, 40)], "is_face": [True, True, False]}
    tensors = {
        "detect.PLATE_BOXES": np.array([[0, 0, 10, 10], [50, 0, 60, 10], [80, 0, 90, 10]], np.float32),
        "detect.FACE_BOXES": np.zeros((0, 4), np.float32),
        "plates.TEXT": np.array([[b"AB12CDE"], [b"XY34ZA8"], [b"AB12CDE"]], object),
        "faces.SCORE": np.array([[0.9], [0.1], [0.2]], np.float32),
    }
    assert labels.f1_of_boxes(tensors, truth) == (4, 6)
    assert labels.found_plates_read(tensors, truth) == (1, 2)
    assert labels.told_apart(tensors, truth) == (2, 3)


def test_the_labelled_set_has_the_pictures_at_their_true_places(
    labels: ModuleType, scenes: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (2, 3, 25, 25), np.uint8)
    monkeypatch.setattr(labels, "render", scenes.render)
    monkeypatch.setattr(labels, "pictures_of_lfw", lambda: pictures)
    monkeypatch.setattr(labels, "SEEDS", range(20))
    made = list(labels.examples())
    counts = [(len(one["faces"]), len(one["is_face"]) - len(one["faces"])) for one in made]
    assert {(0, 0), (1, 0), (0, 1)} <= {(min(1, faces), min(1, others)) for faces, others in counts}
    for one in made:
        assert one["detect.FACES"].shape == (len(one["is_face"]), 48, 48, 3)
        assert one["detect.FACES"].dtype == np.uint8
    graph = load_graph(FOLDER)
    assert graph.labels is not None
    assert all(hasattr(labels, metric.name) for metric in graph.labels.tasks.values())
    assert graph.labels.tasks.keys() == graph.tasks.keys()
