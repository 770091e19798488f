"""Agreement of a model's outputs with those of another model on the same items."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jigsaw_triton.runtime.dtypes import Array, Arrays

Metric = Literal["top-1", "error"]


class UnsuitableMetricError(Exception):
    """The metric does not apply to the outputs of the original."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of a variant with the model that it was made from.

    Attributes:
        metric: `top-1`: share of items with the same label or the same largest score. `error`: 1 minus the mean error.
        value: The agreement, from 0 to 1.
        mean_error: Mean over the items of an item's error. That of a tensor of numbers is the Euclidean norm of the
            difference, relative to that of the original and at most 1; that of labels and texts is the share that
            differs. An item's error is the largest of its outputs.
        max_error: Largest error of an item.
        items: Number of items.
    """

    metric: Metric
    value: float
    mean_error: float
    max_error: float
    items: int

    def __str__(self) -> str:
        on = f"on {self.items} items"
        if self.metric == "top-1":
            return f"top-1 agreement {self.value:.4g} {on}"
        return f"mean error {self.mean_error:.2g}, largest {self.max_error:.2g} {on}"


def agreement(pairs: Iterable[tuple[Arrays, Arrays]], metric: Metric | None = None) -> Agreement:
    """Returns the agreement of outputs.

    Args:
        pairs: Outputs of the original and of the variant for each item, with a batch dimension of 1; at least one pair.
        metric: Metric; by default `top-1` if all that the original returns are labels (one integer or text for each
            item) and vectors of scores, with a label or a single vector, else `error`.

    Raises:
        UnsuitableMetricError: The metric is `top-1`, but the original returns neither labels nor vectors of scores.
    """
    same, errors = [], []
    for original, variant in pairs:
        metric = metric or _usual(original)
        if metric == "top-1" and not (_labels(original) or _scores(original)):
            needs = "a label or a vector of scores for each item"
            raise UnsuitableMetricError(f"a top-1 agreement needs {needs}, which the original does not return")
        errors.append(max(_error(array, variant[name]) for name, array in original.items()))
        same.append(_same(original, variant) if metric == "top-1" else True)
    assert metric is not None
    mean = float(np.mean(errors))
    value = float(np.mean(same)) if metric == "top-1" else 1 - mean
    return Agreement(metric, value, mean, float(max(errors)), len(errors))


def _usual(outputs: Arrays) -> Metric:
    """Returns the metric that suits the outputs of an item."""
    labels, scores = _labels(outputs), _scores(outputs)
    # The number of boxes of a detector, or their scores, would agree without the boxes.
    complete = len(labels) + len(scores) == len(outputs)
    return "top-1" if complete and (labels or len(scores) == 1) else "error"


def _labels(outputs: Arrays) -> Mapping[str, Array]:
    return {name: array for name, array in outputs.items() if array.dtype.kind in "iuOb" and array.size == 1}


def _scores(outputs: Arrays) -> Mapping[str, Array]:
    """Returns the vectors of at least two numbers."""
    return {name: a for name, a in outputs.items() if a.dtype.kind == "f" and a.ndim == 2 and a.shape[1] > 1}


def _same(original: Arrays, variant: Arrays) -> bool:
    """Returns True if an item's labels, or else its largest scores, are the same."""
    if labels := _labels(original):
        return all(np.array_equal(array, variant[name]) for name, array in labels.items())
    return all(
        array.shape == variant[name].shape
        and not np.isnan(variant[name]).any()
        and array.argmax() == variant[name].argmax()
        for name, array in _scores(original).items()
    )


def _error(original: Array, variant: Array) -> float:
    """Returns the error of a tensor of one item, from 0 to 1."""
    if original.shape != variant.shape:
        return 1.0
    if original.dtype.kind != "f":
        return float(np.mean(original != variant)) if original.size else 0.0
    wide, other = original.astype(np.float64), variant.astype(np.float64)
    distance, norm = float(np.linalg.norm(wide - other)), float(np.linalg.norm(wide))
    if distance == 0:
        return 0.0
    # NaN and infinity are in no order with the numbers.
    return distance / norm if distance < norm else 1.0
