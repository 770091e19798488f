"""Small ONNX models, written without the package `onnx`: a file is a protobuf message (onnx/onnx.proto)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jigsaw_triton.runtime.dtypes import Array, to_triton

TYPES = {
    "FP32": 1,
    "UINT8": 2,
    "INT8": 3,
    "UINT16": 4,
    "INT16": 5,
    "INT32": 6,
    "INT64": 7,
    "BYTES": 8,
    "BOOL": 9,
    "FP16": 10,
    "FP64": 11,
    "UINT32": 12,
    "UINT64": 13,
    "BF16": 16,
}
"""Triton data type -> TensorProto.DataType."""

OPSET, IR = 21, 10
_GRAPH, _INTEGER = 5, 2
"""AttributeProto.AttributeType."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph: data type, and dimensions with names for those that vary; None for no shape."""

    dtype: str
    shape: Sequence[int | str] | None = ("batch", 2)


@dataclass(frozen=True)
class Node:
    """A node: an operator with the names of its inputs and outputs, integers and graphs as attributes."""

    operator: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    integers: Mapping[str, int] = field(default_factory=dict)
    graphs: Mapping[str, "Graph"] = field(default_factory=dict)
    domain: str = ""


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order, with inputs, outputs and constants by name; integers become INT64."""

    nodes: Sequence[Node]
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    constants: Mapping[str, Array | Sequence[int] | int] = field(default_factory=dict)


def onnx_file(graph: Graph) -> bytes:
    """Encodes a model."""
    opset = _field(8, _field(1, "") + _field(2, OPSET))
    return _field(1, IR) + _field(7, _graph(graph)) + opset


def identity(dtype: str, shape: Sequence[int | str] = ("batch", 2)) -> bytes:
    """Returns a model that passes X through as Y."""
    tensor = Tensor(dtype, shape)
    return onnx_file(Graph([Node("Identity", ["X"], ["Y"])], {"X": tensor}, {"Y": tensor}))


def endless() -> bytes:
    """Returns a model that passes X through as Y, INT64 [1]. It takes microseconds for 1 and days for 1000."""
    # The loop, whose body counts its turns, makes as many as the fourth power of the sum of X.
    whole = Tensor("INT64", ("batch", 1))
    scalar, yes = Tensor("INT64", ()), Tensor("BOOL", ())
    body = Graph(
        [Node("Identity", ["going_on"], ["go_on"]), Node("Add", ["before", "one"], ["after"])],
        {"turn": scalar, "going_on": yes, "before": scalar},
        {"go_on": yes, "after": scalar},
        {"one": 1},
    )
    nodes = [
        Node("ReduceSum", ["X"], ["sum"], {"keepdims": 0}),
        Node("Mul", ["sum", "sum"], ["squared"]),
        Node("Mul", ["squared", "squared"], ["turns"]),
        Node("Loop", ["turns", "", "none"], ["counted"], graphs={"body": body}),
        Node("Mul", ["counted", "none"], ["zero"]),
        Node("Add", ["X", "zero"], ["Y"]),
    ]
    return onnx_file(Graph(nodes, {"X": whole}, {"Y": whole}, {"none": 0}))


def _graph(graph: Graph) -> bytes:
    return b"".join(
        [
            *(_field(1, _node(node)) for node in graph.nodes),
            _field(2, "graph"),
            *(_field(5, _constant(name, values)) for name, values in graph.constants.items()),
            *(_field(11, _value(name, tensor)) for name, tensor in graph.inputs.items()),
            *(_field(12, _value(name, tensor)) for name, tensor in graph.outputs.items()),
        ]
    )


def _node(node: Node) -> bytes:
    return b"".join(
        [
            *(_field(1, name) for name in node.inputs),
            *(_field(2, name) for name in node.outputs),
            _field(4, node.operator),
            *(
                _field(5, _field(1, name) + _field(3, value) + _field(20, _INTEGER))
                for name, value in node.integers.items()
            ),
            *(
                _field(5, _field(1, name) + _field(6, _graph(body)) + _field(20, _GRAPH))
                for name, body in node.graphs.items()
            ),
            *([_field(7, node.domain)] if node.domain else []),
        ]
    )


def _constant(name: str, values: Array | Sequence[int] | int) -> bytes:
    """Encodes a TensorProto."""
    array = np.asarray(values)
    dims = b"".join(_field(1, dim) for dim in array.shape)
    return dims + _field(2, TYPES[to_triton(array.dtype)]) + _field(8, name) + _field(9, array.tobytes())


def _value(name: str, tensor: Tensor) -> bytes:
    """Encodes a ValueInfoProto."""
    kind = _field(1, TYPES[tensor.dtype])
    if tensor.shape is not None:
        dims = (_field(2, dim) if isinstance(dim, str) else _field(1, dim) for dim in tensor.shape)
        kind += _field(2, b"".join(_field(1, dim) for dim in dims))
    return _field(1, name) + _field(2, _field(1, kind))


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
    encoded.append(value)
    return bytes(encoded)
