"""Tests of the parts of docread's models that need no weights."""

from types import ModuleType

import numpy as np
import pytest

from tests.ensembles.conftest import Array, Script


@pytest.fixture(scope="module")
def detect(script: Script) -> ModuleType:
    return script("docread/models/detect.py")


@pytest.fixture(scope="module")
def recognise(script: Script) -> ModuleType:
    return script("docread/models/recognise.py")


def quad(x: float, y: float, width: float = 100, height: float = 20) -> Array:
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float32)


@pytest.mark.parametrize("turned", range(4))
def test_corners_are_in_reading_order(detect: ModuleType, turned: int) -> None:
    tilted = np.array([[10, 12], [110, 10], [111, 30], [11, 32]], np.float32)
    assert np.array_equal(detect.corners(np.roll(tilted, turned, axis=0)), tilted)


def test_lines_side_by_side_are_read_from_left_to_right(detect: ModuleType) -> None:
    right, left, below = quad(300, 50), quad(40, 53), quad(40, 80)
    ordered = detect.in_reading_order([below, right, left])
    assert [tuple(q[0]) for q in ordered] == [(40, 53), (300, 50), (40, 80)]


def test_a_crop_keeps_the_proportions_of_its_line(detect: ModuleType) -> None:
    page = np.zeros((200, 400, 3), np.uint8)
    page[50:70, 40:90] = 255
    crop = detect.cut(page, quad(40, 50))
    assert crop.shape == (48, 240, 3)
    assert crop[24, 60, 0] == 255
    assert crop[24, 180, 0] == 0


def test_a_tilted_line_is_turned_upright(detect: ModuleType) -> None:
    page = np.zeros((200, 400, 3), np.uint8)
    rows, columns = np.mgrid[:200, :400]
    page[np.abs(rows - 50 - columns * 0.1) < 8] = 255
    tilted = np.array([[50, 47], [250, 67], [249, 83], [49, 63]], np.float32)
    assert detect.cut(page, tilted)[12:36].mean() > 250


def test_a_line_longer_than_a_crop_is_squeezed(detect: ModuleType) -> None:
    page = np.zeros((100, 2000, 3), np.uint8)
    assert detect.cut(page, quad(0, 10, width=1900)).shape == (48, detect.CROP_WIDTH, 3)


def test_repetitions_are_merged_and_blanks_dropped(recognise: ModuleType) -> None:
    probabilities = np.full((7, 4), 0.1, np.float32)
    for step, symbol in enumerate([0, 1, 1, 0, 1, 2, 2]):
        probabilities[step, symbol] = 0.7
    text, score = recognise.decode(probabilities, ["", "a", "é", " "])
    assert text == "aaé".encode()
    assert score == pytest.approx(0.7)


def test_blanks_alone_give_no_text(recognise: ModuleType) -> None:
    assert recognise.decode(np.eye(3, dtype=np.float32)[[0, 0, 0]], ["", "a", " "]) == (b"", 0.0)


def test_a_crop_is_trimmed_to_a_multiple_of_32(detect: ModuleType, recognise: ModuleType) -> None:
    assert recognise.PADDING == detect.PADDING
    crops = np.full((5, 48, 640, 3), recognise.PADDING, np.uint8)
    for row, width in enumerate((0, 1, 32, 33, 640)):
        crops[row, :, :width] = 0
    assert recognise.trimmed_widths(crops).tolist() == [0, 32, 32, 64, 640]
