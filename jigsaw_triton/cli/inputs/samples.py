"""Tensors that options name: the content of a .npy file, random data of a type, or a text."""

import math
import re

import numpy as np

from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.profiling.tensors import made_up
from jigsaw_triton.graph.tensors import TensorType
from jigsaw_triton.runtime.dtypes import Array, to_numpy

_RANDOM = re.compile(r"([A-Z0-9]+)\[(.*)\]")

_TEXT = "text:"
"""Prefix of a value that is itself the text of a BYTES tensor."""

_MOST_VALUES = 2**28
"""Values that random data may have; the memory that they take is a small multiple of 1 GiB."""


def read_sample(text: str) -> Array:
    """Returns one item: random data of a type such as `FP32[3,224,224]`, a text, or the tensor in a .npy file.

    Raises:
        InputError: The type or the file is not valid.
    """
    if match := _RANDOM.fullmatch(text):
        return made_up(_type(text, match[1], match[2]), np.random.default_rng(1))
    if text.startswith(_TEXT):
        return np.array(text.removeprefix(_TEXT).encode(), np.object_)
    return read_tensor(text)


def read_tensor(path: str) -> Array:
    """Returns the tensor in a .npy file. Texts become bytes.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        hint = "save the tensor with numpy.save: for --sample that of one item, without a batch dimension"
        raise InputError(f"the sample cannot be read ({error})", where=path, hint=hint) from error
    if not isinstance(array, np.ndarray):
        raise InputError("the file has several arrays", where=path, hint="save one array with numpy.save")
    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    return array.astype(np.object_) if array.dtype.kind == "S" else array


def _type(text: str, dtype: str, dims: str) -> TensorType:
    """Returns the type that random data should have."""
    try:
        to_numpy(dtype)
    except ValueError as error:
        raise InputError(str(error), where="--sample") from error
    try:
        shape = tuple(int(dim) for dim in dims.split(",") if dim.strip())
    except ValueError:
        shape = (0,)
    if any(dim < 1 for dim in shape):
        hint = "write the sizes of one item, such as FP32[3,224,224]"
        raise InputError(f"'{text}' has a dimension that is not a positive number", where="--sample", hint=hint)
    if math.prod(shape) > _MOST_VALUES:
        hint = f"write the sizes of one item, with up to {_MOST_VALUES} values"
        raise InputError(f"'{text}' has {math.prod(shape)} values, too many for a sample", where="--sample", hint=hint)
    return TensorType(dtype, shape)
