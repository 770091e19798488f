"""Labelled set of this application, 100 composed scenes, and the metrics of its variants on them.

The scenes need `pip install scikit-image`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scenes import Box, Scene, pictures_of_lfw, render

SEEDS = range(1000, 1100)
"""Seeds of the scenes."""

OVERLAP = 0.4
"""Least intersection over union of a found box and the true one."""

FACE_SCORE = 0.5
"""Least score of a face."""

SIDE = 48
"""Side in pixels of the pictures that `faces` gets."""

Boxes = NDArray[np.float32]
Tensors = Mapping[str, NDArray[Any]]
Labels = Mapping[str, Any]


def examples() -> Iterator[Mapping[str, Any]]:
    """Yields each scene, and what is in it.

    Faces and other pictures are cut out at their true places. The variants of `faces` are measured on these.
    """
    faces, others = pictures_of_lfw()
    for seed in SEEDS:
        scene = render(seed, faces, others)
        yield {
            "FRAME": scene.image,
            "plates": scene.plates,
            "faces": scene.faces,
            "detect.FACES": cut_out(scene, [*scene.faces, *scene.others]),
            "is_face": [True] * len(scene.faces) + [False] * len(scene.others),
        }


def f1_of_boxes(tensors: Tensors, labels: Labels) -> tuple[int, int]:
    """Compares the plates and faces that were found with those of the scene."""
    plates = [plate.box for plate in labels["plates"]]
    points, of = 0, 0
    for name, true in (("detect.PLATE_BOXES", plates), ("detect.FACE_BOXES", labels["faces"])):
        points += 2 * len(matches(tensors[name], true))
        of += len(tensors[name]) + len(true)
    return points, of


def found_plates_read(tensors: Tensors, labels: Labels) -> tuple[int, int]:
    """Counts the plates that are read without a mistake, of those that were found."""
    plates, texts = labels["plates"], tensors["plates.TEXT"]
    pairs = matches(tensors["detect.PLATE_BOXES"], [plate.box for plate in plates])
    return sum(texts[box, 0].decode() == plates[plate].text for box, plate in pairs), len(pairs)


def told_apart(tensors: Tensors, labels: Labels) -> tuple[int, int]:
    """Counts the faces and other pictures that are taken for what they are, of all."""
    is_face = tensors["faces.SCORE"][:, 0] >= FACE_SCORE
    return int((is_face == np.array(labels["is_face"], bool)).sum()), len(is_face)


def matches(boxes: Boxes, true: Sequence[Box]) -> list[tuple[int, int]]:
    """Matches found boxes with true ones; returns pairs of indices (found, true). No box is in two pairs."""
    real = np.array(true, np.float32).reshape(-1, 4)
    low = np.maximum(boxes[:, None, :2], real[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], real[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    overlap = shared / (_area(boxes)[:, None] + _area(real)[None, :] - shared)
    pairs: dict[int, int] = {}
    for index in np.argsort(-overlap, axis=None, kind="stable"):
        box, truth = np.unravel_index(index, overlap.shape)
        if overlap[box, truth] < OVERLAP:
            break
        if box not in pairs and truth not in pairs.values():
            pairs[int(box)] = int(truth)
    return sorted(pairs.items())


def cut_out(scene: Scene, boxes: Sequence[Box]) -> NDArray[np.uint8]:
    """Cuts boxes out of a scene, UINT8 [N, 48, 48, 3]."""
    crops = np.zeros((len(boxes), SIDE, SIDE, 3), np.uint8)
    for crop, (x0, y0, x1, y1) in zip(crops, boxes, strict=True):
        crop[:] = cv2.resize(scene.image[round(y0) : round(y1), round(x0) : round(x1)], (SIDE, SIDE))
    return crops


def _area(boxes: Boxes) -> Boxes:
    area: Boxes = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return area
