"""Exchanges BF16 tensors, a type that numpy lacks, with Triton's Python backend by DLPack, bit for bit.

The backend refuses to convert such a tensor to a numpy array. It offers capsules of DLPack (v0.8, `dlpack.h`) instead.
"""

import ctypes
from typing import Any, ClassVar, Final

import numpy as np

from jigsaw_triton.runtime.dtypes import BF16, Array

_NAME: Final = b"dltensor"
_CPU: Final = 1
_BFLOAT: Final = 4


class _Tensor(ctypes.Structure):
    """The structure DLTensor."""

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
    """The structure DLManagedTensor."""

    _fields_: ClassVar = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]


_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_capsule_of = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)

_kept: dict[int, tuple[Any, ...]] = {}
"""Address of the structure that a capsule points to -> objects that must live until its consumer releases it."""

_release = _Deleter(lambda address: _kept.pop(address, None) and None)


def from_capsule(capsule: object) -> Array:
    """Returns a copy of the tensor in a capsule.

    Args:
        capsule: Capsule of a contiguous BF16 tensor in CPU memory.

    Raises:
        ValueError: The tensor is not BF16.
    """
    tensor = _Managed.from_address(_pointer_of(capsule, _NAME)).tensor
    if (tensor.code, tensor.bits, tensor.lanes) != (_BFLOAT, 16, 1):
        raise ValueError(f"the tensor has DLPack type {tensor.code} with {tensor.bits} bits, not BF16")
    shape = tuple(tensor.shape[: tensor.ndim])
    array = np.empty(shape, BF16)
    if array.nbytes:
        ctypes.memmove(array.ctypes.data, tensor.data + tensor.byte_offset, array.nbytes)
    return array


def to_capsule(array: Array) -> object:
    """Returns a capsule of a BF16 array, whose memory is kept alive until the consumer releases it."""
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
