import numpy as np
import pytest

from jigsaw_triton.runtime.dtypes import BF16, Array
from jigsaw_triton.runtime.outcome import check_output
from jigsaw_triton.runtime.spec import TensorSpec


@pytest.mark.parametrize(
    ("spec", "array"),
    [
        (TensorSpec("Y", "INT64", (2,)), np.zeros((3, 2), np.int64)),
        (TensorSpec("Y", "FP16", (-1, 2)), np.zeros((3, 0, 2), np.float16)),
        (TensorSpec("Y", "FP64", ()), np.zeros(3)),
        (TensorSpec("Y", "BYTES", (1,)), np.full((3, 1), b"", np.object_)),
        (TensorSpec("Y", "BF16", (1,)), np.zeros((3, 1), np.uint16).view(BF16)),
    ],
)
def test_an_output_as_declared_is_accepted(spec: TensorSpec, array: Array) -> None:
    check_output(spec, array, 3)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (None, "output Y is missing"),
        (np.zeros((2, 2), np.int32), "output Y is of type int32 where INT64 was declared"),
        (np.zeros((1, 2), np.int64), "output Y has shape [1, 2] where [2, 2] was declared"),
        (np.zeros((2, 3), np.int64), "output Y has shape [2, 3] where [2, 2] was declared"),
        (np.zeros(2, np.int64), "output Y has shape [2] where [2, 2] was declared"),
    ],
)
def test_an_output_other_than_declared_is_refused(array: Array | None, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_output(TensorSpec("Y", "INT64", (2,)), array, 2)
    assert str(caught.value) == words
