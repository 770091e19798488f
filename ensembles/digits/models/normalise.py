"""Scales the pixels of digits to the range 0 to 1, which the classifiers were trained on."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BRIGHTEST = 16.0


class Model:
    """IMAGE FP32 [N, 8, 8], 0 to 16 -> NORMAL FP32 [N, 8, 8], 0 to 1."""

    def __init__(self, folder: Path, parameters: Mapping[str, str], threads: int) -> None:
        pass

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Runs one batch."""
        return {"NORMAL": np.clip(inputs["IMAGE"], 0, BRIGHTEST) / np.float32(BRIGHTEST)}
