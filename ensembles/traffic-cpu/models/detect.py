"""Finds number plates and faces in a frame and cuts them out.

Plates are found as lines of text, by PP-OCR text detection (differentiable binarisation, DB). Faces are found by
CenterFace, which predicts a heat map of centres.

Parameters:

- `long_side`: pixels to which the longer side of the frame is shrunk.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

PLATE_HEIGHT, PLATE_WIDTH = 48, 256
FACE_SIDE = 48
PADDING = 127
"""Pixel value that pads plates on their right; the reader's normalisation turns it to nearly zero."""

MULTIPLE = 32
"""Divisor of the sides of both networks' inputs."""

MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32) * 255
"""Normalisation of the text detector."""

PIXEL_THRESHOLD, LINE_THRESHOLD, UNCLIP = 0.2, 0.4, 1.4
"""Settings of PP-OCRv6: least probability of a pixel, least mean probability of a line, and DB's expansion ratio."""

MIN_SIDE = 3.0
"""Least height and width of a line on the probability map, in pixels."""

MAX_PLATES, MAX_FACES = 100, 100
FACE_THRESHOLD = 0.15
"""Least value of the heat map at the centre of a face."""

OVERLAP = 0.3
"""Intersection over union above which the weaker of two faces is dropped."""

STRIDE = 4
"""Pixels of CenterFace's input for each pixel of its maps."""

MAPS = ("537", "538", "539")
"""Names of CenterFace's outputs: heat map, logarithm of height and width, offset of the centre."""

FIXED = b"".join(b"\n\2\x08" + bytes([side]) for side in (10, 3, 32, 32))
FREE = b"\n\2\x08\1" + b"\n\2\x08\3" + 2 * b"\n\2\x12\0"
"""Shape [10, 3, 32, 32] of CenterFace's input as its file declares it, and [1, 3, ?, ?], which is what it can do."""

ERRORS = 3
"""Least severity of messages. ONNX Runtime warns about the shapes of outputs that CenterFace's file declares."""

Quad = NDArray[np.float32]
"""Corners in pixels of the frame, [4, 2]: top left, top right, bottom right, bottom left."""


class Model:
    """IMAGE UINT8 [1, H, W, 3] (RGB) -> boxes and crops of plates and faces.

    PLATE_BOXES and FACE_BOXES are FP32 [1, rows, 4] (x0, y0, x1, y1), from top to bottom. PLATES are
    UINT8 [1, rows, 48, 256, 3], turned upright. FACES are UINT8 [1, rows, 48, 48, 3].
    """

    def __init__(self, folder: Path, parameters: Mapping[str, str], threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        faces = (folder / "faces.onnx").read_bytes().replace(FIXED, FREE)
        self._text, self._faces = (
            ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            for model in (folder / "text.onnx", faces)
        )
        self._long_side = int(parameters["long_side"])

    def __call__(self, inputs: Mapping[str, NDArray[np.uint8]]) -> dict[str, NDArray[np.float32 | np.uint8]]:
        """Runs one frame."""
        (frame,) = inputs["IMAGE"]
        if frame.size == 0:
            raise ValueError(f"IMAGE is empty: its shape is {frame.shape}")
        sides = np.array(frame.shape[1::-1], np.float32)
        scale = min(1.0, self._long_side / max(sides))
        width, height = (max(MULTIPLE, round(float(side) * scale / MULTIPLE) * MULTIPLE) for side in sides)
        small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        to_frame = sides / np.array([width, height], np.float32)
        plates = top_to_bottom([quad * to_frame for quad in self._plates(small)])
        faces = top_to_bottom([quad * to_frame for quad in self._face_boxes(small)])
        return {
            "PLATE_BOXES": bounds(plates, sides)[None],
            "PLATES": stacked([cut_plate(frame, quad) for quad in plates], (PLATE_HEIGHT, PLATE_WIDTH, 3))[None],
            "FACE_BOXES": bounds(faces, sides)[None],
            "FACES": stacked([cut_face(frame, quad) for quad in faces], (FACE_SIDE, FACE_SIDE, 3))[None],
        }

    def _plates(self, frame: NDArray[np.uint8]) -> Iterator[Quad]:
        """Yields a box around each island of pixels that are likely text, grown to the text's size.

        DB is trained on lines that are shrunk by area * ratio / perimeter on each side. Growing by the same rule undoes
        this.
        """
        scaled = (frame[:, :, ::-1].astype(np.float32) - MEAN) / DEVIATION
        pixels = np.ascontiguousarray(scaled.transpose(2, 0, 1))[None]
        (output,) = self._text.run(None, {self._text.get_inputs()[0].name: pixels})
        probability = output[0, 0]
        likely = (probability > PIXEL_THRESHOLD).astype(np.uint8)
        contours, _ = cv2.findContours(likely, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        for contour in contours[:MAX_PLATES]:
            centre, (width, height), angle = cv2.minAreaRect(contour)
            if min(width, height) < MIN_SIDE or mean_inside(probability, contour) < LINE_THRESHOLD:
                continue
            grow = width * height * UNCLIP / (width + height)
            yield corners(cv2.boxPoints((centre, (width + grow, height + grow), angle)))

    def _face_boxes(self, frame: NDArray[np.uint8]) -> Iterator[Quad]:
        pixels = np.ascontiguousarray(frame.transpose(2, 0, 1), np.float32)[None]
        (heat,), log_sides, offset = (output[0] for output in self._faces.run(MAPS, {"input.1": pixels}))
        rows, columns = np.nonzero(heat > FACE_THRESHOLD)
        height, width = np.exp(log_sides[:, rows, columns]) * STRIDE
        y, x = (np.stack([rows, columns]) + offset[:, rows, columns] + 0.5) * STRIDE
        boxes = np.stack([x - width / 2, y - height / 2, width, height], axis=1)
        kept = cv2.dnn.NMSBoxes(boxes.tolist(), heat[rows, columns].tolist(), FACE_THRESHOLD, OVERLAP)
        for left, top, wide, high in boxes[np.array(kept, np.int64)[:MAX_FACES]]:
            yield rectangle(left, top, left + wide, top + high)


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


def rectangle(left: float, top: float, right: float, bottom: float) -> Quad:
    """Returns the corners of an upright box."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def top_to_bottom(quads: list[Quad]) -> list[Quad]:
    """Sorts quads by the height of their centres."""
    return sorted(quads, key=lambda quad: (float(quad[:, 1].mean()), float(quad[:, 0].mean())))


def bounds(quads: list[Quad], sides: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the upright box [rows, 4] around each quad, clipped to the frame."""
    boxes = [[*np.maximum(quad.min(axis=0), 0), *np.minimum(quad.max(axis=0), sides)] for quad in quads]
    return np.array(boxes, np.float32).reshape(-1, 4)


def stacked(crops: list[NDArray[np.uint8]], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Stacks crops along a new first axis, which may be empty."""
    return np.stack(crops) if crops else np.zeros((0, *shape), np.uint8)


def cut_plate(frame: NDArray[np.uint8], quad: Quad) -> NDArray[np.uint8]:
    """Cuts a plate out as [48, 256, 3]: turned upright, padded on the right, and squeezed if it is longer."""
    wide, high = np.linalg.norm(quad[1] - quad[0]), np.linalg.norm(quad[3] - quad[0])
    width = min(max(8, round(float(wide) * PLATE_HEIGHT / max(float(high), 1.0))), PLATE_WIDTH)
    plate = np.full((PLATE_HEIGHT, PLATE_WIDTH, 3), PADDING, np.uint8)
    plate[:, :width] = _warped(frame, quad, width, PLATE_HEIGHT)
    return plate


def cut_face(frame: NDArray[np.uint8], quad: Quad) -> NDArray[np.uint8]:
    """Cuts a square around a face out and scales it to [48, 48, 3]."""
    (x, y), half = quad.mean(axis=0), float((quad[2] - quad[0]).max()) / 2
    return _warped(frame, rectangle(x - half, y - half, x + half, y + half), FACE_SIDE, FACE_SIDE)


def _warped(frame: NDArray[np.uint8], quad: Quad, width: int, height: int) -> NDArray[np.uint8]:
    target = np.array([[0, 0], [width, 0], [0, height]], np.float32)
    transform = cv2.getAffineTransform(quad[[0, 1, 3]], target)
    crop: NDArray[np.uint8] = cv2.warpAffine(
        frame, transform, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return crop
