"""Variant `windows` of `locate`: a small network scores each window of a strip.

Parameter: `likely`, the score (a logit) above which a digit begins in a window.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = 8


class Model:
    """STRIP UINT8 [1, 8, W] -> DIGITS FP32 [1, R, 8, 8] (0 to 1), COLUMN INT32 [1, R] (first column of each digit)."""

    def __init__(self, folder: Path, parameters: Mapping[str, str], threads: int) -> None:
        with np.load(folder / "windows.npz") as weights:
            self._layers = [(weights[f"weight_{i}"], weights[f"bias_{i}"]) for i in range(2)]
            self._margin = int(weights["margin"])
        self._likely = float(parameters["likely"])

    def __call__(self, inputs: Mapping[str, NDArray[np.uint8]]) -> dict[str, NDArray[Any]]:
        """Runs one strip."""
        (strip,) = inputs["STRIP"].astype(np.float32) / 255
        wide = SIZE + 2 * self._margin
        padded = np.pad(strip, ((0, 0), (self._margin, self._margin + SIZE)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, wide, axis=1).transpose(1, 0, 2)
        scores = self._scores(windows.reshape(len(windows), -1))[: strip.shape[1]]
        columns = sorted(strongest(scores, self._likely))
        crops = windows[columns, :, self._margin : self._margin + SIZE]
        return {"DIGITS": np.ascontiguousarray(crops)[None], "COLUMN": np.array(columns, np.int32)[None]}

    def _scores(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        (first, first_bias), (second, second_bias) = self._layers
        hidden = np.maximum(windows @ first + first_bias, 0)
        scores: NDArray[np.float32] = (hidden @ second + second_bias)[:, 0]
        return scores


def strongest(scores: NDArray[np.float32], threshold: float) -> list[int]:
    """Picks the columns where digits begin: the highest scores, no two of them closer than the width of a digit.

    Args:
        scores: Score of each column.
        threshold: Score that a column must exceed.

    Returns:
        Columns in the order of their scores, highest first.
    """
    columns: list[int] = []
    for column in np.argsort(-scores, kind="stable"):
        if scores[column] <= threshold:
            break
        if all(abs(column - other) >= SIZE for other in columns):
            columns.append(int(column))
    return columns
