"""Labelled set of this application, 80 rendered pages, and the metrics of its variants on them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pages import FLAVOURS, Line, render

SEEDS = range(1000, 1040)
"""Seeds of the pages, each of which is rendered in every flavour."""

COVERED, FILLED = 0.8, 0.4
"""Least share of the true box that a found box covers, and least share of the found box that the true one fills.

These are the area recall and area precision of ICDAR 2013's protocol for text detection (DetEval).
"""

Boxes = NDArray[np.float32]
Tensors = Mapping[str, NDArray[Any]]
Labels = Mapping[str, Sequence[Line]]


def examples() -> Iterator[Mapping[str, Any]]:
    """Yields each page and its lines."""
    for seed in SEEDS:
        for flavour in FLAVOURS:
            page = render(seed, flavour)
            yield {"IMAGE": page.image, "lines": page.lines}


def f1_of_lines(tensors: Tensors, labels: Labels) -> tuple[int, int]:
    """Compares the lines that were found with those of the page."""
    boxes, lines = tensors["detect.BOXES"], labels["lines"]
    return 2 * len(matches(boxes, lines)), len(boxes) + len(lines)


def found_lines_read(tensors: Tensors, labels: Labels) -> tuple[int, int]:
    """Counts the lines that are read without a mistake, of those that were found correctly."""
    pairs = matches(tensors["detect.BOXES"], labels["lines"])
    return _read(tensors, labels, pairs), len(pairs)


def lines_read(tensors: Tensors, labels: Labels) -> tuple[int, int]:
    """Counts the lines that are found and read without a mistake, of all lines of the page."""
    return _read(tensors, labels, matches(tensors["detect.BOXES"], labels["lines"])), len(labels["lines"])


def _read(tensors: Tensors, labels: Labels, pairs: Sequence[tuple[int, int]]) -> int:
    texts = tensors["recognise.TEXT"]
    return sum(texts[box, 0].decode() == labels["lines"][line].text for box, line in pairs)


def matches(boxes: Boxes, lines: Sequence[Line]) -> list[tuple[int, int]]:
    """Matches found boxes with true lines.

    Returns:
        Pairs of indices (box, line). A box or line that matches several others is in no pair.
    """
    true = np.array([line.box for line in lines], np.float32).reshape(-1, 4)
    overlap = np.minimum(boxes[:, None, 2:], true[None, :, 2:]) - np.maximum(boxes[:, None, :2], true[None, :, :2])
    shared = np.clip(overlap, 0, None).prod(axis=2)
    same = (shared >= COVERED * _area(true)[None, :]) & (shared >= FILLED * _area(boxes)[:, None])
    alone = (same.sum(axis=1, keepdims=True) == 1) & (same.sum(axis=0, keepdims=True) == 1)
    return [(int(box), int(line)) for box, line in zip(*np.nonzero(same & alone), strict=True)]


def _area(boxes: Boxes) -> Boxes:
    area: Boxes = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return area
