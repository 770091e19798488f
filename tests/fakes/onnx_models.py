"""Small ONNX files, encoded by hand: they are protobuf messages, and the package onnx is large."""

from collections.abc import Iterable, Sequence

FLOAT, INT32, INT64, STRING = 1, 6, 7, 8
"""Numbers of element types."""


def tensor(name: str, element: int, shape: Sequence[int | str] | None) -> bytes:
    """Encodes the type of an input or output: a text is the name of a dimension that varies; None is any shape."""
    dims = b"".join(_field(1, _field(2 if isinstance(dim, str) else 1, dim)) for dim in shape or ())
    kind = _field(1, element) + (b"" if shape is None else _field(2, dims))
    return _field(1, name) + _field(2, _field(1, kind))


def sequence(name: str) -> bytes:
    """Encodes an output that is a sequence of maps, as skl2onnx makes of probabilities."""
    return _field(1, name) + _field(2, _field(4, _field(1, _field(5, _field(1, INT64)))))


def node(kind: str, inputs: Iterable[str], output: str, *, domain: str = "", **integers: int) -> bytes:
    """Encodes an operation with one output; keyword arguments are its attributes."""
    attributes = (_field(1, name) + _field(3, number) + _field(20, 2) for name, number in integers.items())
    return (
        b"".join(_field(1, name) for name in inputs)
        + _field(2, output)
        + _field(4, kind)
        + b"".join(_field(5, attribute) for attribute in attributes)
        + (_field(7, domain) if domain else b"")
    )


def constant(name: str, numbers: Sequence[int]) -> bytes:
    """Encodes an INT64 tensor, which is the default of the input that has its name."""
    content = b"".join(number.to_bytes(8, "little") for number in numbers)
    return _field(1, len(numbers)) + _field(2, INT64) + _field(8, name) + _field(9, content)


def external(name: str, file: str) -> bytes:
    """Encodes an FP32 tensor whose content is in another file."""
    location = _field(1, "location") + _field(2, file)
    return _field(1, 1) + _field(2, FLOAT) + _field(8, name) + _field(13, location) + _field(14, 1)


def model(
    nodes: Iterable[bytes],
    inputs: Iterable[bytes],
    outputs: Iterable[bytes],
    *,
    constants: Iterable[bytes] = (),
    opset: int = 14,
) -> bytes:
    """Encodes a model."""
    graph = b"".join(
        _field(number, part)
        for number, parts in ((1, nodes), (2, ["graph"]), (5, constants), (11, inputs), (12, outputs))
        for part in parts
    )
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, opset))


def classifier() -> bytes:
    """Encodes a model as skl2onnx makes it: X FP32 [N, 4] -> LABEL INT64 [N] and SCORES FP32 [N, 4]."""
    return model(
        [node("ArgMax", ["X"], "LABEL", axis=1, keepdims=0), node("Identity", ["X"], "SCORES")],
        [tensor("X", FLOAT, ["N", 4])],
        [tensor("LABEL", INT64, ["N"]), tensor("SCORES", FLOAT, ["N", 4])],
    )


def _field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
