import numpy as np
import pytest

from jigsaw_triton.models.agreement import Agreement, UnsuitableMetricError, agreement
from jigsaw_triton.runtime.dtypes import Array


def numbers(*values: float) -> Array:
    return np.array([values], np.float32)


def test_labels_agree_where_they_are_equal() -> None:
    labels = [(5, 5), (5, 6), (1, 1), (2, 2)]
    found = agreement(({"L": np.array([a])}, {"L": np.array([b])}) for a, b in labels)
    assert (found.metric, found.value, found.items) == ("top-1", 0.75, 4)
    assert str(found) == "top-1 agreement 0.75 on 4 items"


def test_scores_agree_where_the_largest_is_the_same() -> None:
    pairs = [(numbers(1, 2, 3), numbers(0, 0, 9)), (numbers(1, 2, 3), numbers(3, 2, 1))]
    assert agreement(({"S": a}, {"S": b}) for a, b in pairs).value == 0.5


def test_labels_come_before_scores() -> None:
    one = {"L": np.array([[b"cat"]], np.object_), "S": numbers(1, 2)}
    other = {"L": np.array([[b"cat"]], np.object_), "S": numbers(2, 1)}
    assert agreement([(one, other)]).value == 1


def test_other_numbers_agree_by_their_error() -> None:
    original = np.array([[[3.0, 4.0]]])
    found = agreement(({"A": original}, {"A": original + change}) for change in (0, np.array([0.3, 0.4])))
    assert (found.metric, found.items) == ("error", 2)
    assert found.mean_error == pytest.approx(0.05)
    assert found.max_error == pytest.approx(0.1)
    assert found.value == pytest.approx(0.95)
    assert str(found) == "mean error 0.05, largest 0.1 on 2 items"


def test_the_boxes_of_a_detector_count() -> None:
    boxes = np.ones((1, 2, 4), np.float32)
    for other in ({"S": numbers(0.9, 0.8)}, {"COUNT": np.array([2])}):
        found = agreement([({"BOXES": boxes, **other}, {"BOXES": boxes * 1.5, **other})])
        assert (found.metric, found.value) == ("error", 0.5)


def test_the_metric_may_be_chosen() -> None:
    found = agreement([({"S": numbers(3, 4)}, {"S": numbers(3.3, 4.4)})], "error")
    assert found.value == pytest.approx(0.9, abs=1e-6)


@pytest.mark.parametrize(
    "variant",
    [np.full((1, 1, 2), np.nan), np.full((1, 1, 2), np.inf), np.ones((1, 1, 3)), np.full((1, 1, 2), -1e9)],
    ids=["NaN", "infinity", "shape", "far off"],
)
def test_the_largest_error_of_an_item_is_one(variant: Array) -> None:
    assert agreement([({"A": np.ones((1, 1, 2))}, {"A": variant})]) == Agreement("error", 0.0, 1.0, 1.0, 1)


def test_scores_that_are_no_numbers_do_not_agree() -> None:
    assert agreement([({"S": numbers(2, 1)}, {"S": numbers(2, np.nan)})]).value == 0
    assert agreement([({"S": numbers(2, 1)}, {"S": numbers(2)})]).value == 0


def test_zeros_agree_with_zeros() -> None:
    assert agreement([({"A": np.zeros((1, 2, 2))}, {"A": np.zeros((1, 2, 2))})]).value == 1


def test_several_integers_agree_by_the_share_that_is_equal() -> None:
    found = agreement([({"I": np.array([[1, 2, 3, 4]])}, {"I": np.array([[1, 2, 3, 5]])})])
    assert (found.metric, found.value) == ("error", 0.75)


def test_an_output_without_elements_agrees() -> None:
    assert agreement([({"I": np.zeros((1, 0), int)}, {"I": np.zeros((1, 0), int)})]).value == 1


def test_an_agreement_of_labels_needs_labels_or_scores() -> None:
    boxes = np.ones((1, 2, 4), np.float32)
    with pytest.raises(UnsuitableMetricError, match="a label or a vector of scores"):
        agreement([({"B": boxes}, {"B": boxes})], "top-1")
