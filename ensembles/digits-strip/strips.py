"""Strips of handwritten digits with known content: what digits-strip is trained, measured and shown on."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "digits"))  # beside this folder, wherever both are
from training import BRIGHTEST, Digits

FEWEST, MOST = 3, 9
WIDEST_GAP = 4
NOISE = 20.0


@dataclass(frozen=True, slots=True)
class Strip:
    """Digits in a row.

    Attributes:
        image: UINT8 [8, width]: 8-pixel digits from left to right, 0 to 4 pixels between them, and noise.
        digits: INT64 [R]: what they are.
        columns: INT32 [R]: where each begins.
    """

    image: NDArray[np.uint8]
    digits: NDArray[np.int64]
    columns: NDArray[np.int32]


def render(seed: int, digits: Digits) -> Strip:
    """The strip of this seed, its digits drawn from `digits`."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(digits.labels), size=rng.integers(FEWEST, MOST + 1))
    gaps = rng.integers(WIDEST_GAP + 1, size=len(rows) + 1)
    columns = np.cumsum(gaps[:-1]) + 8 * np.arange(len(rows))
    image = np.zeros((8, int(columns[-1]) + 8 + int(gaps[-1])), np.float32)
    for column, row in zip(columns, rows, strict=True):
        image[:, column : column + 8] = digits.images[row] * (255 / BRIGHTEST)
    image += rng.normal(0, NOISE, image.shape)
    return Strip(np.clip(image, 0, 255).astype(np.uint8), digits.labels[rows], columns.astype(np.int32))
