import numpy as np
import pytest
from numpy.typing import NDArray

from jigsaw_triton.controller.core.agreement import agreement


@pytest.mark.parametrize(
    ("running", "new", "text"),
    [
        (np.array([[1, 2]]), np.array([[1, 2]]), "Y is equal"),
        (np.array([[1, 2]]), np.array([[1, 3]]), "Y differs in 1 of 2 elements"),
        (np.array([[b"cat"]], object), np.array([[b"dog"]], object), "Y differs in 1 of 1 elements"),
        (np.zeros((1, 3)), np.zeros((1, 4)), "Y has shape [1, 4] instead of [1, 3]"),
        (np.array([[2.0]]), np.array([[2.5]]), "Y differs by at most 0.25 of its largest value"),
        (
            np.array([[2.0, 1.0], [0.0, 1.0]]),
            np.array([[1.0, 2.0], [0.0, 1.0]]),
            "Y differs by at most 0.5 of its largest value, with the same argmax in 1 of 2 rows",
        ),
    ],
)
def test_answers_are_compared_by_output(running: NDArray[np.generic], new: NDArray[np.generic], text: str) -> None:
    assert agreement({"Y": running}, {"Y": new}) == text


def test_each_output_has_its_phrase() -> None:
    running = {"B": np.zeros((1, 2)), "A": np.ones((1, 2))}
    assert agreement(running, running) == "A is equal; B is equal"
