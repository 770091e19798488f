"""Small ONNX files, encoded by hand: they are protobuf messages, and the package onnx is large."""

from collections.abc import Iterable, Sequence

from tests.fakes.protobuf import proto

FLOAT, INT32, INT64, STRING = 1, 6, 7, 8
"""Numbers of element types."""


def tensor(name: str, element: int, shape: Sequence[int | str] | None) -> bytes:
    """Encodes the type of an input or output: a text is the name of a dimension that varies; None is any shape."""
    dims = b"".join(proto(1, proto(2 if isinstance(dim, str) else 1, dim)) for dim in shape or ())
    kind = proto(1, element) + (b"" if shape is None else proto(2, dims))
    return proto(1, name) + proto(2, proto(1, kind))


def sequence(name: str) -> bytes:
    """Encodes an output that is a sequence of maps, as skl2onnx makes of probabilities."""
    return proto(1, name) + proto(2, proto(4, proto(1, proto(5, proto(1, INT64)))))


def node(kind: str, inputs: Iterable[str], output: str, *, domain: str = "", **integers: int) -> bytes:
    """Encodes an operation with one output; keyword arguments are its attributes."""
    attributes = (proto(1, name) + proto(3, number) + proto(20, 2) for name, number in integers.items())
    return (
        b"".join(proto(1, name) for name in inputs)
        + proto(2, output)
        + proto(4, kind)
        + b"".join(proto(5, attribute) for attribute in attributes)
        + (proto(7, domain) if domain else b"")
    )


def constant(name: str, numbers: Sequence[int]) -> bytes:
    """Encodes an INT64 tensor, which is the default of the input that has its name."""
    content = b"".join(number.to_bytes(8, "little") for number in numbers)
    return proto(1, len(numbers)) + proto(2, INT64) + proto(8, name) + proto(9, content)


def external(name: str, file: str) -> bytes:
    """Encodes an FP32 tensor whose content is in another file."""
    location = proto(1, "location") + proto(2, file)
    return proto(1, 1) + proto(2, FLOAT) + proto(8, name) + proto(13, location) + proto(14, 1)


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
        proto(number, part)
        for number, parts in ((1, nodes), (2, ["graph"]), (5, constants), (11, inputs), (12, outputs))
        for part in parts
    )
    return proto(1, 8) + proto(7, graph) + proto(8, proto(1, "") + proto(2, opset))


def classifier() -> bytes:
    """Encodes a model as skl2onnx makes it: X FP32 [N, 4] -> LABEL INT64 [N] and SCORES FP32 [N, 4]."""
    return model(
        [node("ArgMax", ["X"], "LABEL", axis=1, keepdims=0), node("Identity", ["X"], "SCORES")],
        [tensor("X", FLOAT, ["N", 4])],
        [tensor("LABEL", INT64, ["N"]), tensor("SCORES", FLOAT, ["N", 4])],
    )
