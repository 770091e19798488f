"""Replaces the models of a graph by emulated ones, and makes the requests that clients send to it."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from tritonclient.grpc.service_pb2 import ModelInferRequest
from tritonclient.utils import serialize_byte_tensor

from jigsaw_triton.evaluation.load import request_tensors
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.graph.tensors import GRAPH_INPUTS, TensorRef
from jigsaw_triton.runtime import draws
from jigsaw_triton.runtime.dtypes import Array, to_triton

EMULATED = "emulated"


def emulated(graph: TaskGraph) -> TaskGraph:
    """Returns a graph whose variants are all emulated. Its Python steps stay as they are."""
    tasks = {
        name: replace(
            task,
            variants=tuple(replace(v, template=EMULATED, artifacts={}, parameters={}) for v in task.variants),
        )
        for name, task in graph.tasks.items()
    }
    return replace(graph, tasks=tasks)


class Requests:
    """Encoded requests to a graph, with numbers of rows as the simulator draws them.

    Args:
        graph: Graph to send requests to.
        rng: Source of randomness for the rows of graph inputs over which tasks iterate.

    Raises:
        InputError: A sample is no tensor, or does not have the type of its input.
    """

    def __init__(self, graph: TaskGraph, rng: np.random.Generator) -> None:
        self._graph, self._rng = graph, rng
        self._tensors, _ = request_tensors(graph)
        inputs = ((name, TensorRef(GRAPH_INPUTS, name)) for name in graph.inputs)
        self._rows = {name: graph.inputs[name].rows for name, ref in inputs if graph.makes_rows(ref)}
        self._encoded: dict[tuple[int, ...], bytes] = {}

    def draw(self) -> bytes:
        """Returns the next request."""
        rows = tuple(draws.rows(np.array([*self._rows.values()]), self._rng).tolist())
        if rows not in self._encoded:
            resized = dict(zip(self._rows, rows, strict=True))
            self._encoded[rows] = self._request(resized)
        return self._encoded[rows]

    def _request(self, rows: Mapping[str, int]) -> bytes:
        request = ModelInferRequest(model_name=self._graph.name)
        for name, tensor in self._tensors.items():
            array = np.resize(tensor, (rows[name], *tensor.shape[1:])) if name in rows else tensor
            request.inputs.add(name=name, datatype=to_triton(array.dtype), shape=(1, *array.shape))
            request.raw_input_contents.append(_raw(array))
        encoded: bytes = request.SerializeToString()
        return encoded


def _raw(array: Array) -> bytes:
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array).tobytes()
    encoded: bytes = serialize_byte_tensor(array).item() if array.size else b""
    return encoded
