"""Small ONNX models, written without the package `onnx`: a file is a protobuf message (onnx/onnx.proto)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jigsaw_triton.runtime.dtypes import Array, to_triton
from tests.fakes.protobuf import proto

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
    opset = proto(8, proto(1, "") + proto(2, OPSET))
    return proto(1, IR) + proto(7, _graph(graph)) + opset


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
            *(proto(1, _node(node)) for node in graph.nodes),
            proto(2, "graph"),
            *(proto(5, _constant(name, values)) for name, values in graph.constants.items()),
            *(proto(11, _value(name, tensor)) for name, tensor in graph.inputs.items()),
            *(proto(12, _value(name, tensor)) for name, tensor in graph.outputs.items()),
        ]
    )


def _node(node: Node) -> bytes:
    return b"".join(
        [
            *(proto(1, name) for name in node.inputs),
            *(proto(2, name) for name in node.outputs),
            proto(4, node.operator),
            *(
                proto(5, proto(1, name) + proto(3, value) + proto(20, _INTEGER))
                for name, value in node.integers.items()
            ),
            *(
                proto(5, proto(1, name) + proto(6, _graph(body)) + proto(20, _GRAPH))
                for name, body in node.graphs.items()
            ),
            *([proto(7, node.domain)] if node.domain else []),
        ]
    )


def _constant(name: str, values: Array | Sequence[int] | int) -> bytes:
    """Encodes a TensorProto."""
    array = np.asarray(values)
    dims = b"".join(proto(1, dim) for dim in array.shape)
    return dims + proto(2, TYPES[to_triton(array.dtype)]) + proto(8, name) + proto(9, array.tobytes())


def _value(name: str, tensor: Tensor) -> bytes:
    """Encodes a ValueInfoProto."""
    kind = proto(1, TYPES[tensor.dtype])
    if tensor.shape is not None:
        dims = (proto(2, dim) if isinstance(dim, str) else proto(1, dim) for dim in tensor.shape)
        kind += proto(2, b"".join(proto(1, dim) for dim in dims))
    return proto(1, name) + proto(2, proto(1, kind))
