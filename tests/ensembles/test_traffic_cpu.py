"""Tests of traffic-cpu on its golden scene, with its real weights."""

import json
from itertools import combinations
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jigsaw_triton.applications import missing_artifacts
from jigsaw_triton.resources import applications_dir
from tests.ensembles.conftest import Array, Script

FOLDER = applications_dir() / "traffic-cpu"

pytestmark = pytest.mark.skipif(
    bool(missing_artifacts(FOLDER)), reason="weights are missing: run `jigsaw-triton fetch ensembles/traffic-cpu`"
)


@pytest.fixture(scope="module")
def accuracy(script: Script) -> ModuleType:
    return script("traffic-cpu/accuracy.py")


@pytest.fixture(scope="module")
def scene() -> Array:
    array: Array = np.load(FOLDER / "golden" / "scene.npy")
    return array


@pytest.fixture(scope="module")
def golden() -> Any:
    return json.loads((FOLDER / "golden" / "scene.json").read_text())


@pytest.fixture(scope="module")
def found(accuracy: ModuleType, scene: Array) -> dict[str, Array]:
    outputs: dict[str, Array] = accuracy.load("detect", "side_640")({"IMAGE": scene[None]})
    return outputs


@pytest.fixture
def scenes(script: Script, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Module `scenes` with plain backgrounds in place of scikit-image's photographs."""
    module = script("traffic-cpu/scenes.py")
    grey, coloured = np.full((300, 400), 90, np.uint8), np.full((700, 500, 3), 120, np.uint8)
    photos = {name: lambda n=number: (grey, coloured)[n % 2] for number, name in enumerate(module.BACKGROUNDS)}
    monkeypatch.setattr(module, "_skimage", lambda: SimpleNamespace(**photos))
    return module


def true_boxes(golden: Any) -> dict[str, Array]:
    truth = golden["truth"]
    boxes = {"PLATE_BOXES": [plate["box"] for plate in truth["plates"]], "FACE_BOXES": truth["faces"]}
    return {name: np.array(rows, np.float32) for name, rows in boxes.items()}


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
    accuracy: ModuleType, scene: Array, golden: Any, name: str
) -> None:
    outputs = accuracy.load("detect", name)({"IMAGE": scene[None]})
    for boxes, true in true_boxes(golden).items():
        assert len(accuracy.matches(outputs[boxes][0], true)) == len(true)
    assert outputs["PLATES"].shape == (1, outputs["PLATE_BOXES"].shape[1], 48, 256, 3)
    assert outputs["FACES"].shape == (1, outputs["FACE_BOXES"].shape[1], 48, 48, 3)


@pytest.mark.parametrize("name", ["v6_tiny", "v6_small"])
def test_every_variant_reads_the_plates_of_the_golden_scene(
    accuracy: ModuleType, found: dict[str, Array], golden: Any, name: str
) -> None:
    read = accuracy.load("plates", name)({"PLATE": found["PLATES"][0]})
    assert [text.decode() for text in read["TEXT"][:, 0]] == golden["expected"]["TEXT"]
    assert {plate["text"] for plate in golden["truth"]["plates"]} == set(golden["expected"]["TEXT"])
    assert read["SCORE"].dtype == np.float32
    assert 0.8 < read["SCORE"].min() <= 1


@pytest.mark.parametrize("name", ["rnet", "onet"])
def test_every_variant_tells_the_faces_of_the_golden_scene_from_other_places(
    accuracy: ModuleType, scene: Array, found: dict[str, Array], name: str
) -> None:
    model = accuracy.load("faces", name)
    assert (model({"FACE": found["FACES"][0]})["SCORE"] > 0.9).all()
    others = np.stack([scene[y : y + 48, x : x + 48] for x in (0, 240) for y in (0, 150, 400)])
    assert (model({"FACE": others})["SCORE"] < 0.2).all()


def test_the_expected_answer_is_what_its_variants_give(
    accuracy: ModuleType, found: dict[str, Array], golden: Any
) -> None:
    expected = golden["expected"]
    assert expected["detect"] == "side_640"
    for name in ("PLATE_BOXES", "FACE_BOXES"):
        assert found[name][0] == pytest.approx(np.array(expected[name]), abs=2)
    scores = accuracy.load("faces", expected["faces"])({"FACE": found["FACES"][0]})["SCORE"][:, 0]
    assert scores == pytest.approx(np.array(expected["FACE_SCORE"]), abs=0.02)


@pytest.mark.parametrize("shape", [(32, 32), (1, 1), (5, 3000), (77, 131)])
def test_an_empty_frame_has_no_plates_and_no_faces(accuracy: ModuleType, shape: tuple[int, int]) -> None:
    outputs = accuracy.load("detect", "side_320")({"IMAGE": np.zeros((1, *shape, 3), np.uint8)})
    assert {name: array.shape[:2] for name, array in outputs.items()} == dict.fromkeys(outputs, (1, 0))
    read = accuracy.load("plates", "v6_tiny")({"PLATE": outputs["PLATES"][0]})
    assert [read[name].shape for name in ("TEXT", "SCORE")] == [(0, 1), (0, 1)]
    assert accuracy.load("faces", "rnet")({"FACE": outputs["FACES"][0]})["SCORE"].shape == (0, 1)


def test_a_frame_without_pixels_is_refused(accuracy: ModuleType) -> None:
    with pytest.raises(ValueError, match="IMAGE is empty"):
        accuracy.load("detect", "side_320")({"IMAGE": np.zeros((1, 0, 10, 3), np.uint8)})


@pytest.mark.parametrize(("task", "variant"), [("plates", "v6_tiny"), ("faces", "rnet"), ("faces", "onet")])
def test_rows_alone_and_in_a_batch_give_the_same(
    accuracy: ModuleType, found: dict[str, Array], task: str, variant: str
) -> None:
    model = accuracy.load(task, variant)
    name, rows = ("PLATE", found["PLATES"][0]) if task == "plates" else ("FACE", found["FACES"][0])
    together = model({name: rows})["SCORE"]
    assert together == pytest.approx(np.concatenate([model({name: row[None]})["SCORE"] for row in rows]), abs=1e-4)


def test_a_box_is_matched_once_and_with_its_best_partner(accuracy: ModuleType) -> None:
    true = np.array([[0, 0, 10, 10], [50, 0, 60, 10]], np.float32)
    boxes = np.array([[2, 0, 12, 10], [0, 0, 10, 11], [50, 0, 80, 10]], np.float32)
    assert accuracy.matches(boxes, true) == [(1, 0)]
    assert accuracy.matches(boxes[:0], true) == []
