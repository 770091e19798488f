"""Tests of docread on rendered pages, with its real weights."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jigsaw_triton.api.files import load_graph
from jigsaw_triton.applications import missing_artifacts
from jigsaw_triton.resources import applications_dir
from tests.ensembles.conftest import Array, CallModel, Load, Script

FOLDER = applications_dir() / "docread"

pytestmark = pytest.mark.skipif(
    bool(missing_artifacts(FOLDER)), reason="weights and fonts are missing: run `jigsaw-triton fetch ensembles/docread`"
)

DETECT = ("v6_tiny_352", "v6_tiny_480", "v6_tiny_720", "v6_small_720")
RECOGNISE = ("v6_tiny", "v5_mobile", "v6_small")


LoadTask = Callable[[str, str], CallModel]
"""Function that loads the model of a task's variant."""


@pytest.fixture(scope="module")
def load(load_model: Load) -> LoadTask:
    return partial(load_model, "docread")


@pytest.fixture(scope="module")
def labels(script: Script) -> ModuleType:
    return script("docread/labels.py")


@pytest.fixture(scope="module")
def pages(script: Script) -> ModuleType:
    return script("docread/pages.py")


@pytest.fixture(scope="module")
def page() -> Array:
    array: Array = np.load(FOLDER / "golden" / "page.npy")
    return array


@pytest.fixture(scope="module")
def golden() -> Any:
    return json.loads((FOLDER / "golden" / "page.json").read_text())


@pytest.fixture(scope="module")
def crops(load: LoadTask, page: Array) -> Array:
    found: Array = load("detect", "v6_tiny_720")({"IMAGE": page[None]})["CROPS"][0]
    return found


def texts(outputs: Mapping[str, Array]) -> list[str]:
    return [text.decode() for text in outputs["TEXT"][:, 0]]


def test_graph_yaml_has_the_variants_that_are_tested() -> None:
    graph = load_graph(FOLDER)
    assert tuple(variant.name for variant in graph.tasks["detect"].variants) == DETECT
    assert tuple(variant.name for variant in graph.tasks["recognise"].variants) == RECOGNISE


@pytest.mark.parametrize("flavour", ["easy", "hard"])
def test_pages_of_a_seed_are_the_same(pages: ModuleType, flavour: str) -> None:
    first, again, other = (pages.render(seed, flavour) for seed in (3, 3, 4))
    assert np.array_equal(first.image, again.image)
    assert first.lines == again.lines
    assert first.lines != other.lines
    assert first.image.shape == (960, 640, 3)
    for line in first.lines:
        x0, y0, x1, y1 = line.box
        assert 0 <= x0 < x1 <= 640
        assert 0 <= y0 < y1 <= 960
        assert line.text == line.text.strip() != ""


def test_the_golden_page_is_one_page_in_two_formats(page: Array) -> None:
    assert page.dtype == np.uint8
    assert np.array_equal(np.asarray(Image.open(FOLDER / "golden" / "page.png").convert("RGB")), page)


@pytest.mark.parametrize(("name", "least"), list(zip(DETECT, (0.6, 0.9, 0.95, 0.95), strict=True)))
def test_detect_finds_the_lines_of_the_golden_page(
    load: LoadTask, labels: ModuleType, pages: ModuleType, page: Array, golden: Any, name: str, least: float
) -> None:
    outputs = load("detect", name)({"IMAGE": page[None]})
    boxes, crops = outputs["BOXES"], outputs["CROPS"]
    assert boxes.dtype == np.float32
    assert boxes.shape[::2] == (1, 4)
    assert crops.dtype == np.uint8
    assert crops.shape == (1, boxes.shape[1], 48, 640, 3)
    lines = [pages.Line(line["text"], tuple(line["box"])) for line in golden["truth"]]
    pairs = labels.matches(boxes[0], lines)
    assert 2 * len(pairs) / (boxes.shape[1] + len(lines)) >= least
    assert [line for _, line in pairs] == sorted(line for _, line in pairs), "lines are not in reading order"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), list(zip(RECOGNISE, (0.9, 0.85, 0.95), strict=True)))
def test_recognise_reads_the_golden_page(load: LoadTask, crops: Array, golden: Any, name: str, least: float) -> None:
    outputs = load("recognise", name)({"CROP": crops})
    truth = [line["text"] for line in golden["truth"]]
    assert len(truth) == len(crops)
    assert np.mean([a == b for a, b in zip(texts(outputs), truth, strict=True)]) >= least
    assert outputs["SCORE"].dtype == np.float32
    assert outputs["SCORE"].shape == (len(crops), 1)
    assert 0.8 < outputs["SCORE"].mean() <= 1


def test_the_expected_answer_is_what_its_variants_give(load: LoadTask, page: Array, golden: Any) -> None:
    expected = golden["expected"]
    found = load("detect", expected["detect"])({"IMAGE": page[None]})
    read = texts(load("recognise", expected["recognise"])({"CROP": found["CROPS"][0]}))
    assert len(read) == len(expected["lines"])
    assert np.allclose(found["BOXES"][0], [line["box"] for line in expected["lines"]], atol=2)
    # Processors differ in the last bits of a result, which may change a letter.
    assert sum(a == line["text"] for a, line in zip(read, expected["lines"], strict=True)) >= len(read) - 1


@pytest.mark.parametrize("shape", [(32, 32), (1, 1), (5, 3000), (77, 131)])
def test_an_empty_page_has_no_lines(load: LoadTask, shape: tuple[int, int]) -> None:
    outputs = load("detect", "v6_tiny_480")({"IMAGE": np.zeros((1, *shape, 3), np.uint8)})
    assert outputs["BOXES"].shape == (1, 0, 4)
    assert outputs["CROPS"].shape == (1, 0, 48, 640, 3)


def test_a_page_without_pixels_is_refused(load: LoadTask) -> None:
    with pytest.raises(ValueError, match="IMAGE is empty"):
        load("detect", "v6_tiny_480")({"IMAGE": np.zeros((1, 0, 10, 3), np.uint8)})


def test_a_line_reads_the_same_alone_and_in_a_batch(load: LoadTask, crops: Array) -> None:
    model = load("recognise", "v6_tiny")
    together = texts(model({"CROP": crops[:6]}))
    assert together == [texts(model({"CROP": crop[None]}))[0] for crop in crops[:6]]


def test_padding_and_darkness_are_no_text(load: LoadTask) -> None:
    model = load("recognise", "v6_tiny")
    crops = np.stack([np.full((48, 640, 3), 127, np.uint8), np.zeros((48, 640, 3), np.uint8)])
    outputs = model({"CROP": crops})
    assert texts(outputs) == ["", ""]
    assert outputs["SCORE"].tolist() == [[0.0], [0.0]]
    assert model({"CROP": crops[:0]})["TEXT"].shape == (0, 1)


def test_labels_are_pages_of_both_flavours(labels: ModuleType) -> None:
    first, second = islice(labels.examples(), 2)
    assert first["IMAGE"].shape == second["IMAGE"].shape == (960, 640, 3)
    assert not np.array_equal(first["IMAGE"], second["IMAGE"])
    assert len(labels.SEEDS) * len(labels.FLAVOURS) == 80


def test_metrics_count_lines(labels: ModuleType, pages: ModuleType) -> None:
    """Three lines; the first is found and read, the second found and misread, the third found twice."""
    boxes = [(0, 0, 100, 20), (0, 40, 100, 60), (0, 80, 100, 100)]
    lines = {"lines": [pages.Line(text, box) for text, box in zip(("one", "two", "three"), boxes, strict=True)]}
    found = np.array([boxes[0], boxes[1], boxes[2], boxes[2]], np.float32)
    texts = np.array([[b"one"], [b"tvo"], [b"three"], [b"three"]], np.object_)
    tensors = {"detect.BOXES": found, "recognise.TEXT": texts}
    assert labels.f1_of_lines(tensors, lines) == (4, 7)
    assert labels.found_lines_read(tensors, lines) == (1, 2)
    assert labels.lines_read(tensors, lines) == (1, 3)
