from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest

from jigsaw_triton.evaluation.rehearsal.emulation import Requests, emulated
from jigsaw_triton.graph.model import GraphInput, TaskGraph, Variant
from jigsaw_triton.graph.tensors import TensorType
from tests.fakes.graphs import fan_out, graph, task

TEXT = TensorType("BYTES", (2,))


def requests(of: TaskGraph, count: int, *, seed: int = 0) -> list[ModelInferRequest]:
    made = Requests(of, np.random.default_rng(seed))
    return [ModelInferRequest.FromString(made.draw()) for _ in range(count)]


def test_every_model_is_emulated_and_keeps_its_accuracy_and_yields() -> None:
    real = Variant("s", 0.7, "onnxruntime", {"model.onnx": Path("/m.onnx")}, {"a": "1"}, yields={"CROPS": 2.5})
    base = fan_out()
    base = replace(base, tasks={**base.tasks, "detect": replace(base.tasks["detect"], variants=(real,))})
    found = emulated(base)
    assert found.tasks["detect"].variants == (Variant("s", 0.7, "emulated", yields={"CROPS": 2.5}),)
    assert {v.template for t in found.tasks.values() for v in t.variants} == {"emulated"}
    assert (found.name, found.slo, found.outputs) == (base.name, base.slo, base.outputs)


def test_a_request_has_all_inputs_in_tritons_format() -> None:
    of = graph(
        [task("a", {"T": "inputs.T", "X": "inputs.X"})],
        {"Y": "a.Y"},
        inputs={"T": TEXT, "X": TensorType("FP32", (3,))},
    )
    (request,) = requests(of, 1)
    assert request.model_name == of.name
    tensors = {i.name: (i.datatype, list(i.shape)) for i in request.inputs}
    assert tensors == {"T": ("BYTES", [1, 2]), "X": ("FP32", [1, 3])}
    sizes = {i.name: len(raw) for i, raw in zip(request.inputs, request.raw_input_contents, strict=True)}
    assert sizes["X"] == 12
    assert sizes["T"] > 2 * 4


def test_rows_of_an_input_are_poisson_around_the_graphs_estimate() -> None:
    detect = task("classify", {"X": "inputs.ROWS"}, for_each="inputs.ROWS")
    of = graph([detect], {"Y": "classify.Y"}, inputs={"ROWS": TensorType("FP32", (-1, 4))})
    of = replace(of, inputs={"ROWS": GraphInput(of.inputs["ROWS"].type, rows=3.0)})
    found = requests(of, 2000)
    rows = [request.inputs[0].shape[1] for request in found]
    assert np.mean(rows) == pytest.approx(3.0, rel=0.06)
    assert np.var(rows) == pytest.approx(3.0, rel=0.12)
    assert all(len(r.raw_input_contents[0]) == 16 * n for r, n in zip(found, rows, strict=True))
    assert [r.SerializeToString() for r in requests(of, 20)] == [r.SerializeToString() for r in requests(of, 20)]
    assert rows[:20] != [r.inputs[0].shape[1] for r in requests(of, 20, seed=1)]
