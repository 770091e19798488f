"""BF16 tensors between Triton's python backend and numpy, which has no such type: by DLPack, bit for bit.

The backend refuses to make a numpy array of one, and offers capsules of DLPack (v0.8, `dlpack.h`) instead.
"""

import ctypes
from typing import Any, ClassVar, Final

import numpy as np

from jigsaw_triton.runtime.dtypes import BF16, Array

_NAME: Final = b"dltensor"
_CPU: Final = 1
_BFLOAT: Final = 4


class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_: ClassVar = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    """DLManagedTensor."""

    _fields_: ClassVar = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]


_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_capsule_of = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)

_kept: dict[int, tuple[Any, ...]] = {}
"""By the address of what a capsule points to: what must not go before its taker has done with it."""

_release = _Deleter(lambda address: _kept.pop(address, None) and None)


def from_capsule(capsule: object) -> Array:
    """A copy of the tensor.

    Args:
        capsule: Of a BF16 tensor in the processor's memory, contiguous.

    Raises:
        ValueError: It is none of those.
    """
    tensor = _Managed.from_address(_pointer_of(capsule, _NAME)).tensor
    if (tensor.code, tensor.bits, tensor.lanes) != (_BFLOAT, 16, 1):
        raise ValueError(f"a tensor of DLPack type {tensor.code} with {tensor.bits} bits is not BF16")
    shape = tuple(tensor.shape[: tensor.ndim])
    array = np.empty(shape, BF16)
    if array.nbytes:
        ctypes.memmove(array.ctypes.data, tensor.data + tensor.byte_offset, array.nbytes)
    return array


def to_capsule(array: Array) -> object:
    """A capsule of a BF16 array, which stays as it is until whoever takes it has done with it."""
    array = np.ascontiguousarray(array)
    shape = (ctypes.c_int64 * array.ndim)(*array.shape)
    tensor = _Tensor(
        data=array.ctypes.data,
        device_type=_CPU,
        ndim=array.ndim,
        code=_BFLOAT,
        bits=16,
        lanes=1,
        shape=shape,
    )
    managed = _Managed(tensor=tensor, deleter=_release)
    address = ctypes.addressof(managed)
    _kept[address] = (managed, shape, array)
    return _capsule_of(address, _NAME, None)
