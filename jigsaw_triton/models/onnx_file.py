"""Reads the inputs and outputs of an ONNX file without its weights and without the packages onnx and onnxruntime.

An ONNX file is a protobuf message. Its fields are walked in a map of the file, and those that hold weights or operators
are skipped by their length, so a large model takes milliseconds. Numbers of fields are those of onnx.proto.
"""

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TypeVar

from jigsaw_triton.errors import InputError
from jigsaw_triton.models.interface import Interface, ModelTensor

_DTYPES = {
    1: "FP32",
    2: "UINT8",
    3: "INT8",
    4: "UINT16",
    5: "INT16",
    6: "INT32",
    7: "INT64",
    8: "BYTES",
    9: "BOOL",
    10: "FP16",
    11: "FP64",
    12: "UINT32",
    13: "UINT64",
    16: "BF16",
}
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_TENSOR_NAME, _TENSOR_EXTERNAL = 8, 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR = 1
_TENSOR_TYPE_ELEMENT, _TENSOR_TYPE_SHAPE = 1, 2
_SHAPE_DIM, _DIM_VALUE = 1, 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LFS = b"version https://git-lfs"

Result = TypeVar("Result")


def read_onnx(path: Path) -> Interface:
    """Returns the inputs and outputs of an ONNX file.

    Raises:
        InputError: The file cannot be read, is not an ONNX model, or has its weights in another folder.
    """
    interface = parsed(path, _interface)
    if distant := [name for name in sorted(interface.files) if PurePosixPath(name).name != name]:
        hint = "save the model again with its weights in a file beside it"
        message = f"the model has weights in another folder ({distant[0]}), where no artifact can be"
        raise InputError(message, where=str(path), hint=hint)
    return interface


def parsed(path: Path, parse: Callable[[memoryview], Result]) -> Result:
    """Returns what a function finds in the content of an ONNX file.

    Raises:
        InputError: The file cannot be read, or is not an ONNX model.
    """
    try:
        with path.open("rb") as file:
            # The map is closed when the last view of it is gone; closing it before would be an error.
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if content[: len(_LFS)] == _LFS:
            raise InputError("this is a pointer of Git LFS, not a model", where=str(path), hint="run git lfs pull")
        return parse(content)
    except OSError as error:
        hint = "check the path and its permissions"
        raise InputError(f"the model cannot be read ({error})", where=str(path), hint=hint) from error
    except (ValueError, IndexError) as error:  # An empty file cannot be mapped.
        raise InputError(
            "this is not an ONNX model", where=str(path), hint="export the model again, or correct the path"
        ) from error


def _interface(model: memoryview) -> Interface:
    """Reads the graph of a model.

    Raises:
        ValueError: The content is not a model.
    """
    graphs = [value for number, value in _fields(model) if number == _MODEL_GRAPH and isinstance(value, memoryview)]
    if not graphs:
        raise ValueError("there is no graph")
    inputs: dict[str, ModelTensor] = {}
    outputs: dict[str, ModelTensor] = {}
    defaults, files = set(), set()
    for number, value in _fields(graphs[-1]):
        if number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
            name, kind = _value(_message(value))
            (inputs if number == _GRAPH_INPUT else outputs)[name] = kind
        elif number == _GRAPH_INITIALIZER:
            for key, part in _fields(_message(value)):
                if key == _TENSOR_NAME:
                    defaults.add(_text(part))
                elif key == _TENSOR_EXTERNAL:
                    entry = {field: _text(text) for field, text in _fields(_message(part))}
                    files |= {entry[_ENTRY_VALUE]} if entry.get(_ENTRY_KEY) == "location" else set()
    if not outputs:
        raise ValueError("the graph has no output")
    return Interface(inputs, outputs, frozenset(defaults & inputs.keys()), frozenset(files))


def _value(message: memoryview) -> tuple[str, ModelTensor]:
    """Returns the name and type of an input or output."""
    name, kind = "", ModelTensor(None, None)
    for number, value in _fields(message):
        if number == _VALUE_NAME:
            name = _text(value)
        elif number == _VALUE_TYPE:
            tensors = [_message(tensor) for form, tensor in _fields(_message(value)) if form == _TYPE_TENSOR]
            kind = _tensor(tensors[-1]) if tensors else kind
    return name, kind


def _tensor(message: memoryview) -> ModelTensor:
    dtype, shape = None, None
    for number, value in _fields(message):
        if number == _TENSOR_TYPE_ELEMENT and isinstance(value, int):
            dtype = _DTYPES.get(value)
        elif number == _TENSOR_TYPE_SHAPE:
            shape = tuple(_dim(_message(dim)) for key, dim in _fields(_message(value)) if key == _SHAPE_DIM)
    return ModelTensor(dtype, shape)


def _dim(message: memoryview) -> int:
    """Returns the size of a dimension, or -1 if it has a name or nothing instead."""
    sizes = [value for number, value in _fields(message) if number == _DIM_VALUE and isinstance(value, int)]
    return sizes[-1] if sizes and 0 < sizes[-1] < 2**31 else -1


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yields the number and the value of each field of a message. See `raw_fields`."""
    for number, value, _ in raw_fields(message):
        yield number, value


def raw_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview, memoryview]]:
    """Yields the number of each field of a message, its value, and the bytes of both.

    Raises:
        ValueError: The content is not a message.
        IndexError: The content ends within a number.
    """
    at = 0
    while at < len(message):
        start = at
        key, at = _varint(message, at)
        form = key & 7
        if form == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value, message[start:at]
            continue
        if form == _BYTES:
            size, at = _varint(message, at)
        elif form in (_FIXED32, _FIXED64):
            size = 4 if form == _FIXED32 else 8
        else:
            raise ValueError(f"there is no wire type {form}")
        if at + size > len(message):
            raise ValueError("a field is longer than its message")
        yield key >> 3, message[at : at + size], message[start : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Returns the number at a position, and the position after it."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message is expected")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()
