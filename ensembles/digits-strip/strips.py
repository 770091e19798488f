"""Strips of handwritten digits with known content, for training, measurements and examples."""

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.resources import applications_dir

sys.path.insert(0, str(applications_dir() / "digits"))
from training import BRIGHTEST, Digits

FEWEST, MOST = 3, 9
WIDEST_GAP = 4
NOISE = 20.0


@dataclass(frozen=True, slots=True)
class Strip:
    """A row of digits.

    Attributes:
        image: Pixels, UINT8 [8, width]: digits of 8 x 8 pixels from left to right, 0 to 4 pixels apart, with noise.
        digits: Classes of the digits, INT64 [R].
        columns: First column of each digit, INT32 [R].
    """

    image: NDArray[np.uint8]
    digits: NDArray[np.int64]
    columns: NDArray[np.int32]


def render(seed: int, digits: Digits) -> Strip:
    """Renders a strip.

    Args:
        seed: Seed of the strip; equal seeds give equal strips.
        digits: Digits to draw from.
    """
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(digits.labels), size=rng.integers(FEWEST, MOST + 1))
    gaps = rng.integers(WIDEST_GAP + 1, size=len(rows) + 1)
    columns = np.cumsum(gaps[:-1]) + 8 * np.arange(len(rows))
    image = np.zeros((8, int(columns[-1]) + 8 + int(gaps[-1])), np.float32)
    for column, row in zip(columns, rows, strict=True):
        image[:, column : column + 8] = digits.images[row] * (255 / BRIGHTEST)
    image += rng.normal(0, NOISE, image.shape)
    return Strip(np.clip(image, 0, 255).astype(np.uint8), digits.labels[rows], columns.astype(np.int32))
