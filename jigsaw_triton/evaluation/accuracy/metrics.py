"""Metrics: how well the answers to one request match its labels.

Each metric returns points and the number of points that a perfect answer gets, which are added up over requests.

- `exact`: rows that equal their label.
- `top1`: rows whose largest element is the one that their label, an integer, names.
- `f1`: twice the rows that are among the labels, over the rows and the labels together, in any order.
- `edit`: labels less the fewest insertions, deletions and substitutions that turn the answer into them: of words where
  the output is text, of rows otherwise. This is one minus the word error rate.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jigsaw_triton.graph.measured import METRICS
from jigsaw_triton.runtime.dtypes import Array

_TOLERANCE = 1e-5
"""Relative and absolute difference up to which floating-point numbers are equal."""


class Score(NamedTuple):
    """Result of a metric for one request.

    Attributes:
        points: Points of the answer.
        of: Points of a perfect answer.
    """

    points: float
    of: float


def exact(found: Array, label: Array) -> Score:
    """Counts the rows that equal their label; missing and surplus rows are wrong."""
    pairs = min(len(found), len(label))
    right = sum(_equal(found[row], label[row]) for row in range(pairs))
    return Score(right, max(len(found), len(label)))


def top1(found: Array, label: Array) -> Score:
    """Counts the rows whose largest element is the one that the label names."""
    wanted = label.reshape(-1)
    chosen = found.reshape(-1, found.shape[-1]).argmax(axis=1)
    pairs = min(len(chosen), len(wanted))
    return Score(int((chosen[:pairs] == wanted[:pairs]).sum()), max(len(chosen), len(wanted)))


def f1(found: Array, label: Array) -> Score:
    """Compares the rows in any order. A request with neither rows nor labels counts nothing."""
    right = (Counter(_items(found)) & Counter(_items(label))).total()
    return Score(2 * right, len(found) + len(label))


def edit(found: Array, label: Array) -> Score:
    """Compares the sequences of words or rows by their edit distance."""
    answer, wanted = _words(found), _words(label)
    return Score(len(wanted) - distance(answer, wanted), len(wanted))


BUILT_IN: Mapping[str, Callable[[Array, Array], Score]] = dict(zip(METRICS, (exact, top1, f1, edit), strict=True))
"""Name of a metric -> its function of an output and its label."""


def distance(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Returns the Levenshtein distance of two sequences."""
    row = list(range(len(other) + 1))
    for i, item in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, wanted in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (item != wanted))
    return row[-1]


def same(found: Mapping[str, Array], best: Mapping[str, Array]) -> bool:
    """Returns True if two variants agree on a call.

    Variants rarely give the same floating-point numbers. If they have other outputs, these must be equal. Else the
    largest element along the last dimension must be the same or, if there is only one, the number within 1%.
    """
    discrete = [name for name, array in best.items() if array.dtype.kind != "f"]
    if discrete:
        return all(np.array_equal(found[name], best[name]) for name in discrete)
    return all(_alike(found[name], best[name]) for name in best)


def _alike(found: Array, best: Array) -> bool:
    if found.shape != best.shape:
        return False
    if best.size == 0 or best.shape[-1] == 1:
        return bool(np.allclose(found, best, rtol=0.01, atol=0.0, equal_nan=True))
    return bool(np.array_equal(found.argmax(axis=-1), best.argmax(axis=-1)))


def _equal(found: Array, label: Array) -> bool:
    if np.shape(found) != np.shape(label):
        return False
    if np.asarray(label).dtype.kind == "f":
        return bool(np.allclose(found, label, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True))
    return bool(np.array_equal(found, label))


def _items(array: Array) -> list[Hashable]:
    return [_hashable(row) for row in array]


def _hashable(row: Array) -> Hashable:
    flat = np.asarray(row).reshape(-1).tolist()
    return tuple(flat) if len(flat) != 1 else flat[0]


def _words(array: Array) -> list[Hashable]:
    if array.dtype.kind == "O":
        return [word for text in array.reshape(-1) for word in text.split()]
    return _items(array)
