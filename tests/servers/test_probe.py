from typing import Any

import numpy as np
import pytest

from jigsaw_triton.errors import ServerError
from jigsaw_triton.servers.probe import probe_inputs


def config(*inputs: dict[str, Any], max_batch_size: int = 0) -> dict[str, Any]:
    return {"name": "m", "max_batch_size": max_batch_size, "input": list(inputs)}


def test_inputs_are_zeros_of_the_declared_shape() -> None:
    image = {"name": "IMAGE", "data_type": "TYPE_UINT8", "dims": [-1, -1, 3]}
    (array,) = probe_inputs(config(image)).values()
    assert array.shape == (32, 32, 3)
    assert array.dtype == np.uint8
    assert not array.any()


def test_a_batching_model_gets_a_batch_of_one() -> None:
    arrays = probe_inputs(config({"name": "X", "data_type": "TYPE_FP32", "dims": ["4"]}, max_batch_size=8))
    assert arrays["X"].shape == (1, 4)


def test_text_inputs_are_empty_strings() -> None:
    arrays = probe_inputs(config({"name": "TEXT", "data_type": "TYPE_STRING", "dims": [2]}, max_batch_size=1))
    assert arrays["TEXT"].tolist() == [[b"", b""]]


def test_optional_inputs_are_omitted() -> None:
    assert probe_inputs(config({"name": "X", "data_type": "TYPE_FP32", "dims": [1], "optional": True})) == {}


def test_an_unknown_type_is_an_error() -> None:
    with pytest.raises(ServerError, match="FP8"):
        probe_inputs(config({"name": "X", "data_type": "TYPE_FP8", "dims": [1]}))
