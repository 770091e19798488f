"""Reads number plates: PP-OCR recognition, a network that slides over the plate, with CTC decoding."""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

CHARACTERS = string.ascii_uppercase + string.digits
"""Characters of a plate. All other classes of the network are ignored."""


class Model:
    """PLATE UINT8 [N, 48, W, 3] (RGB) -> TEXT BYTES [N, 1], SCORE FP32 [N, 1] (mean over characters, 0 to 1)."""

    def __init__(self, folder: Path, parameters: Mapping[str, str], threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        entries = (folder / "dictionary.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        # Class 0 is CTC's blank; the dictionary begins at class 1.
        self._classes = np.array([0, *(1 + entries.index(character) for character in CHARACTERS)])

    def __call__(self, inputs: Mapping[str, NDArray[np.uint8]]) -> dict[str, NDArray[Any]]:
        """Runs a batch of plates."""
        plates = inputs["PLATE"]
        text = np.full((len(plates), 1), b"", np.object_)
        score = np.zeros((len(plates), 1), np.float32)
        if len(plates):
            scaled = plates[:, :, :, ::-1].astype(np.float32) / 127.5 - 1.0
            (output,) = self._session.run(None, {self._input: np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))})
            for row, probabilities in enumerate(output[:, :, self._classes]):
                text[row, 0], score[row, 0] = decode(probabilities)
        return {"TEXT": text, "SCORE": score}


def decode(probabilities: NDArray[np.float32]) -> tuple[bytes, float]:
    """Decodes CTC greedily: takes the likeliest class of each step, merges repetitions, and drops blanks.

    Args:
        probabilities: Probability of the blank and of each of `CHARACTERS` at each step, [steps, classes].

    Returns:
        Text, and mean probability of its characters.
    """
    best = probabilities.argmax(axis=1)
    starts = np.flatnonzero((best != 0) & (np.diff(best, prepend=-1) != 0))
    if starts.size == 0:
        return b"", 0.0
    text = "".join(CHARACTERS[i - 1] for i in best[starts])
    return text.encode(), float(probabilities[starts, best[starts]].mean())
