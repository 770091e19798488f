"""Conversions between Triton's data types and numpy's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]
"""Tensors by name. BYTES tensors are object arrays of bytes; BF16 tensors are arrays of the dtype `BF16`."""

_NUMPY: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
BF16 = np.dtype([("bf16", "<u2")])
"""Stand-in for Triton's BF16, which numpy lacks: an array of this dtype has the bits in a field of that name."""

_DTYPES = {**{name: np.dtype(kind) for name, kind in _NUMPY.items()}, "BF16": BF16}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def to_numpy(dtype: str) -> np.dtype[Any]:
    """Returns the numpy type of a Triton data type.

    Raises:
        ValueError: There is no such data type.
    """
    try:
        return _DTYPES[dtype]
    except KeyError:
        raise ValueError(f"data type {dtype} has no numpy type; use one of {', '.join(_DTYPES)}") from None


def to_triton(dtype: np.dtype[Any]) -> str:
    """Returns the Triton data type of a numpy type; fixed-width strings are BYTES.

    Raises:
        ValueError: Triton has no such type.
    """
    name = _NAMES.get(dtype)
    if name is not None:
        return name
    if dtype.kind in "SU":
        return "BYTES"
    raise ValueError(f"numpy type {dtype} has no Triton data type")


def to_bytes(made: Any) -> Array:
    """Converts bytes and text, in any form from which numpy makes an array, to a BYTES array.

    Raises:
        ValueError: There is an element of another type, or text that cannot be encoded as UTF-8.
    """
    # The array must have objects from the start, because numpy's own strings drop trailing null bytes.
    array = np.asarray(made, np.object_)
    encoded = np.empty(array.shape, np.object_)
    for index, element in np.ndenumerate(array):
        if not isinstance(element, bytes | str):
            raise ValueError(f"{type(element).__name__} where bytes or text are expected")
        # Triton treats numpy.bytes_ as text, so it is converted to bytes.
        encoded[index] = element.encode() if isinstance(element, str) else bytes(element)
    return encoded


def size_bytes(array: Array) -> int:
    """Returns the size of an array's elements in bytes; a string counts with its own length."""
    return sum(map(len, array.flat)) if array.dtype.kind == "O" else array.nbytes
