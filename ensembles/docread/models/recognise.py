"""Reads lines of text: PP-OCR recognition, a network that slides over the line, with CTC decoding."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

PADDING = 127
"""Pixel value with which the detector pads crops. Normalised, it is nearly zero, as the padding in training was."""

MULTIPLE = 32
"""Divisor of the widths that the network runs on."""

BLANK = 0
"""Class of CTC's blank."""


class Model:
    """CROP UINT8 [N, 48, W, 3] (RGB) -> TEXT BYTES [N, 1] (UTF-8), SCORE FP32 [N, 1] (mean over characters, 0 to 1).

    Lines are trimmed to a multiple of 32 pixels, and lines of the same width run together. Padding all lines of a batch
    of eight to the longest takes 1.7 times as long on a CPU.
    """

    def __init__(self, folder: Path, parameters: Mapping[str, str], threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        entries = (folder / "dictionary.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        self._characters = ["", *entries, " "]

    def __call__(self, inputs: Mapping[str, NDArray[np.uint8]]) -> dict[str, NDArray[Any]]:
        """Runs a batch of lines."""
        crops = inputs["CROP"]
        text = np.full((len(crops), 1), b"", np.object_)
        score = np.zeros((len(crops), 1), np.float32)
        widths = trimmed_widths(crops)
        for width in np.unique(widths[widths > 0]):
            rows = np.flatnonzero(widths == width)
            lines = crops[rows, :, :width, ::-1].astype(np.float32) / 127.5 - 1.0
            (output,) = self._session.run(None, {self._input: np.ascontiguousarray(lines.transpose(0, 3, 1, 2))})
            for row, probabilities in zip(rows, output, strict=True):
                text[row, 0], score[row, 0] = decode(probabilities, self._characters)
        return {"TEXT": text, "SCORE": score}


def decode(probabilities: NDArray[np.float32], characters: Sequence[str]) -> tuple[bytes, float]:
    """Decodes CTC greedily: takes the likeliest class of each step, merges repetitions, and drops blanks.

    Args:
        probabilities: Probability of each class at each step, [steps, classes].
        characters: Character of each class.

    Returns:
        Text in UTF-8, and mean probability of its characters.
    """
    best = probabilities.argmax(axis=1)
    starts = np.flatnonzero((best != BLANK) & (np.diff(best, prepend=-1) != 0))
    if starts.size == 0:
        return b"", 0.0
    text = "".join(characters[i] for i in best[starts])
    return text.encode(), float(probabilities[starts, best[starts]].mean())


def trimmed_widths(crops: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Returns the width [N] of each crop without the padding on its right, rounded up to a multiple of 32.

    A crop that is all padding has the width 0.
    """
    width = crops.shape[2]
    written = (crops != PADDING).any(axis=(1, 3))
    used = np.where(written.any(axis=1), width - written[:, ::-1].argmax(axis=1), 0)
    return np.minimum(-(-used // MULTIPLE) * MULTIPLE, width)
