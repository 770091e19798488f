"""A variant of template `python`: a class `Model` that is created once and called with each batch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Model:
    """Computes the mean of some values.

    Args:
        folder: Folder of the model's files, which have the names given under `artifacts`.
        parameters: Parameters in graph.yaml, as text.
        threads: Number of threads that the model may use.
    """

    def __init__(self, folder: Path, parameters: Mapping[str, str], threads: int) -> None:
        self._stride = int(parameters.get("stride", "1"))

    def __call__(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """VALUES [batch, 16] -> MEAN [batch, 1]."""
        values = inputs["VALUES"][:, :: self._stride]
        return {"MEAN": values.mean(axis=1, keepdims=True, dtype=np.float32)}
