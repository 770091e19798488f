"""Generates a request that any model accepts, to probe if it answers."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jigsaw_triton.errors import ServerError
from jigsaw_triton.runtime.dtypes import Array, to_numpy

_VARIABLE = 32
"""Size of a varying dimension in a probe; convolutions with strides need a minimum number of pixels."""


def probe_inputs(config: Mapping[str, Any]) -> dict[str, Array]:
    """Returns zeros, or empty strings, for the required inputs of a model.

    Args:
        config: Configuration of the model as Triton serves it.

    Returns:
        Input name -> array of the declared shape, in which varying dimensions are 32, with a batch dimension of 1 if
        the model has one.

    Raises:
        ServerError: An input has an unknown type.
    """
    batch = [1] if config.get("max_batch_size", 0) > 0 else []
    return {
        item["name"]: _zeros(config["name"], item["data_type"].removeprefix("TYPE_"), [*batch, *map(int, item["dims"])])
        for item in config.get("input", ())
        if not item.get("optional", False)
    }


def _zeros(model: str, dtype: str, dims: list[int]) -> Array:
    shape = [_VARIABLE if size < 0 else size for size in dims]
    if dtype in ("STRING", "BYTES"):
        return np.array([b""] * math.prod(shape), np.object_).reshape(shape)
    try:
        return np.zeros(shape, to_numpy(dtype))
    except ValueError as error:
        raise ServerError(f"cannot be probed: {error}", where=model) from error
