"""Labelled set of this application: strips of test digits."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from strips import render
from training import load

TEST_STRIPS = range(10_000, 10_500)
"""Seeds of the strips."""


def examples() -> Iterator[Mapping[str, NDArray[Any]]]:
    """Yields each strip, the columns where its digits begin, the digits, and their classes.

    The digits are cut out at their true places. Classifiers are measured on these.
    """
    _, testing = load()
    for seed in TEST_STRIPS:
        strip = render(seed, testing)
        digits = np.stack([strip.image[:, column : column + 8] for column in strip.columns])
        yield {
            "STRIP": strip.image,
            "locate.COLUMN": strip.columns,
            "locate.DIGITS": digits.astype(np.float32) / 255,
            "classify.DIGIT": strip.digits[:, None],
        }
