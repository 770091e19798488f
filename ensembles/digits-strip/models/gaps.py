"""Variant `gaps` of `locate`: finds digits on a strip by the dark columns between them.

Parameter: `ink`, the brightness (0 to 1) above which a pixel belongs to a digit.
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
        self._ink = float(parameters["ink"])

    def __call__(self, inputs: Mapping[str, NDArray[np.uint8]]) -> dict[str, NDArray[Any]]:
        """Runs one strip."""
        (strip,) = inputs["STRIP"].astype(np.float32) / 255
        inked = np.pad(strip.max(axis=0) > self._ink, 1)
        (edges,) = np.nonzero(inked[1:] != inked[:-1])
        columns: list[int] = []
        for start, end in edges.reshape(-1, 2):
            count = max(1, round((end - start) / SIZE))  # digits that touch are assumed to be equally wide
            centres = start + (np.arange(count) + 0.5) * (end - start) / count
            columns += [int(c) for c in np.clip(np.round(centres - SIZE / 2), 0, max(0, strip.shape[1] - SIZE))]
        padded = np.pad(strip, ((0, 0), (0, SIZE)))
        digits = np.zeros((len(columns), SIZE, SIZE), np.float32)
        for digit, column in zip(digits, columns, strict=True):
            digit[:] = padded[:, column : column + SIZE]
        return {"DIGITS": digits[None], "COLUMN": np.array(columns, np.int32)[None]}
