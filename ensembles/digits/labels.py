"""Labelled set of this application: the test digits of the data set."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from training import load


def examples() -> Iterator[Mapping[str, NDArray[np.float32 | np.int64]]]:
    """Yields each test digit and what it shows."""
    _, testing = load()
    for image, label in zip(testing.images, testing.labels, strict=True):
        yield {"IMAGE": image, "classify.DIGIT": np.array([label])}
