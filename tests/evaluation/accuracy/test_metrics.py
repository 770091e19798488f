from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.evaluation.accuracy.metrics import Score, distance, edit, exact, f1, same, top1
from jigsaw_triton.runtime.dtypes import Array


def texts(*lines: str) -> Array:
    return np.array([[line.encode()] for line in lines], np.object_)


@pytest.mark.parametrize(
    ("metric", "found", "label", "score"),
    [
        (exact, np.array([[1], [2], [3]]), np.array([[1], [5], [3]]), (2, 3)),
        (exact, np.array([[1], [2]]), np.array([[1], [2], [3]]), (2, 3)),
        (exact, np.array([[1], [2], [3]]), np.array([[1]]), (1, 3)),
        (exact, np.zeros((0, 1)), np.zeros((0, 1)), (0, 0)),
        (exact, np.array([[0.1 + 0.2]]), np.array([[0.3]]), (1, 1)),
        (exact, texts("a", "b"), texts("a", "c"), (1, 2)),
        (top1, np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]]), np.array([1, 2]), (1, 2)),
        (top1, np.array([[0.1, 0.7]]), np.array(1), (1, 1)),
        (f1, np.array([3, 11, 11]), np.array([11, 3, 20]), (4, 6)),
        (f1, np.zeros(0, int), np.array([1]), (0, 1)),
        (f1, np.zeros(0, int), np.zeros(0, int), (0, 0)),
        (edit, np.array([[1], [2], [4]]), np.array([[1], [2], [3], [4]]), (3, 4)),
        (edit, texts("the cat sat"), texts("the cat sat down"), (3, 4)),
        (edit, texts("a b c d"), texts("x"), (-3, 1)),
    ],
)
def test_a_metric_scores_an_answer_against_its_label(
    metric: Callable[[Array, Array], Score], found: Array, label: Array, score: Any
) -> None:
    assert metric(found, label) == score


@given(st.text("ab", max_size=7), st.text("ab", max_size=7))
def test_the_edit_distance_is_a_metric(one: str, other: str) -> None:
    assert distance(one, other) == distance(other, one)
    assert (distance(one, other) == 0) == (one == other)
    assert abs(len(one) - len(other)) <= distance(one, other) <= max(len(one), len(other))


@pytest.mark.parametrize(
    ("found", "best", "agree"),
    [
        ({"A": np.array([[1]]), "S": np.array([[0.1]])}, {"A": np.array([[1]]), "S": np.array([[0.9]])}, True),
        ({"A": np.array([[1]])}, {"A": np.array([[2]])}, False),
        ({"A": texts("x", "y")}, {"A": texts("x")}, False),
        ({"S": np.array([[0.1, 0.9]])}, {"S": np.array([[0.4, 0.6]])}, True),
        ({"S": np.array([[0.1, 0.9]])}, {"S": np.array([[0.6, 0.4]])}, False),
        ({"S": np.array([[1.004]])}, {"S": np.array([[1.0]])}, True),
        ({"S": np.array([[1.02]])}, {"S": np.array([[1.0]])}, False),
        ({"S": np.zeros((0, 4))}, {"S": np.zeros((0, 4))}, True),
        ({"S": np.zeros((1, 4))}, {"S": np.zeros((0, 4))}, False),
    ],
)
def test_variants_agree_by_what_they_decide(found: dict[str, Array], best: dict[str, Array], agree: bool) -> None:
    assert same(found, best) is agree
