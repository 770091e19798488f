"""Finds the lines of text on a page and cuts them out: PP-OCR text detection by differentiable binarisation (DB).

Parameters:

- `long_side`: pixels to which the longer side of the page is shrunk.
- `pixel_threshold`: probability above which a pixel belongs to a line.
- `line_threshold`: least mean probability of a line.
- `unclip`: DB's expansion ratio, by which lines are grown back.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

CROP_HEIGHT, CROP_WIDTH = 48, 640
PADDING = 127
"""Pixel value that pads crops on their right; the recogniser's normalisation turns it to zero."""

MULTIPLE = 32
"""Divisor of the sides of the network's input."""

MAX_LINES = 1000
MIN_SIDE = 3.0
"""Least height and width of a line on the probability map, in pixels."""

MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32) * 255

Quad = NDArray[np.float32]
"""Corners of a line in page pixels, [4, 2]: top left, top right, bottom right, bottom left, as the line is read."""


class Model:
    """IMAGE UINT8 [1, H, W, 3] (RGB) -> BOXES FP32 [1, lines, 4] (x0, y0, x1, y1), CROPS UINT8 [1, lines, 48, 640, 3].

    Lines are in reading order: from top to bottom, and from left to right for lines side by side.
    """

    def __init__(self, folder: Path, parameters: Mapping[str, str], threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._long_side = int(parameters["long_side"])
        self._pixel_threshold = float(parameters["pixel_threshold"])
        self._line_threshold = float(parameters["line_threshold"])
        self._unclip = float(parameters["unclip"])

    def __call__(self, inputs: Mapping[str, NDArray[np.uint8]]) -> dict[str, NDArray[np.float32 | np.uint8]]:
        """Runs one page."""
        (image,) = inputs["IMAGE"]
        if image.size == 0:
            raise ValueError(f"IMAGE is empty: its shape is {image.shape}")
        height, width = image.shape[:2]
        probability = self._probability(image)
        to_page = np.array([width / probability.shape[1], height / probability.shape[0]], np.float32)
        quads = in_reading_order([quad * to_page for quad in self._lines(probability)])
        boxes = np.zeros((len(quads), 4), np.float32)
        crops = np.full((len(quads), CROP_HEIGHT, CROP_WIDTH, 3), PADDING, np.uint8)
        for quad, box, crop in zip(quads, boxes, crops, strict=True):
            box[:2] = np.maximum(quad.min(axis=0), 0)
            box[2:] = np.minimum(quad.max(axis=0), (width, height))
            line = cut(image, quad)
            crop[:, : line.shape[1]] = line
        return {"BOXES": boxes[None], "CROPS": crops[None]}

    def _probability(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the probability [h, w] that each pixel belongs to a (shrunken) line; h and w are multiples of 32."""
        scale = min(1.0, self._long_side / max(image.shape[:2]))
        height, width = (max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in image.shape[:2])
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)[:, :, ::-1]
        scaled = (small.astype(np.float32) - MEAN) / DEVIATION
        (output,) = self._session.run(None, {self._input: np.ascontiguousarray(scaled.transpose(2, 0, 1))[None]})
        probability: NDArray[np.float32] = output[0, 0]
        return probability

    def _lines(self, probability: NDArray[np.float32]) -> Iterator[Quad]:
        """Yields the lines in pixels of the map: a box around each island of likely pixels, grown to the text's size.

        DB is trained on lines that are shrunk by area * ratio / perimeter on each side. Growing by the same rule undoes
        this.
        """
        likely = (probability > self._pixel_threshold).astype(np.uint8)
        contours, _ = cv2.findContours(likely, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        for contour in contours[:MAX_LINES]:
            centre, (width, height), angle = cv2.minAreaRect(contour)
            if min(width, height) < MIN_SIDE or mean_inside(probability, contour) < self._line_threshold:
                continue
            grow = width * height * self._unclip / (width + height)
            yield corners(cv2.boxPoints((centre, (width + grow, height + grow), angle)))


def mean_inside(probability: NDArray[np.float32], contour: NDArray[np.int32]) -> float:
    """Returns the mean probability inside the contour."""
    x, y, width, height = cv2.boundingRect(contour)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [contour - (x, y)], 1)
    return float(cv2.mean(probability[y : y + height, x : x + width], mask)[0])


def corners(points: NDArray[np.float32]) -> Quad:
    """Orders the corners of a rectangle around a line that is read from left to right."""
    left, right = np.split(points[np.argsort(points[:, 0], kind="stable")], 2)
    top_left, bottom_left = left[np.argsort(left[:, 1])]
    top_right, bottom_right = right[np.argsort(right[:, 1])]
    return np.stack([top_left, top_right, bottom_right, bottom_left])


def cut(image: NDArray[np.uint8], quad: Quad) -> NDArray[np.uint8]:
    """Cuts a line out as [48, width, 3], turned upright, and squeezed if it is longer than a crop."""
    wide, high = np.linalg.norm(quad[1] - quad[0]), np.linalg.norm(quad[3] - quad[0])
    width = min(max(8, round(float(wide) * CROP_HEIGHT / max(float(high), 1.0))), CROP_WIDTH)
    target = np.array([[0, 0], [width, 0], [0, CROP_HEIGHT]], np.float32)
    transform = cv2.getAffineTransform(quad[[0, 1, 3]], target)
    line: NDArray[np.uint8] = cv2.warpAffine(
        image, transform, (width, CROP_HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return line


def in_reading_order(quads: list[Quad]) -> list[Quad]:
    """Sorts lines from top to bottom, and from left to right if they are side by side.

    Lines are side by side if their centres differ by less than half a line's height.
    """
    rows: list[list[Quad]] = []
    for quad in sorted(quads, key=lambda q: float(q[:, 1].mean())):
        middle = quad[:, 1].mean()
        if rows and middle - rows[-1][-1][:, 1].mean() < (quad[3, 1] - quad[0, 1]) / 2:
            rows[-1].append(quad)
        else:
            rows.append([quad])
    return [quad for row in rows for quad in sorted(row, key=lambda q: float(q[:, 0].min()))]
