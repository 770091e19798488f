"""ONNX models in the compiled backend, relative to the same models in onnxruntime inside Triton's Python backend.

The model has the shape of a classifier of `ensembles/digits`. It is called directly, in one tritonserver, and behind a
gateway after the Python model `normalise`, as in that application.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import system
from benchmarks.dataplane import client, sides
from benchmarks.dataplane.compare import clients, ratio
from benchmarks.effort import FULL, Effort
from benchmarks.harness import Figure, Progress, figure
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.resources import applications_dir
from jigsaw_triton.servers.installation import find_installation
from tests.fakes.onnx_files import Graph, Node, Tensor, onnx_file

RUN_S = 1.0
WARM_UP_S = 0.3
TURNS = 3
"""Measurements of each side in a round. They are short and many, because the load of a shared machine drifts."""

CLIENTS = (1, 8, 32)
ALIKE = 64
"""Requests whose answers are compared."""

SIDES = ("python", "onnxruntime")
"""Templates of the sides: the baseline, and ours."""

GOAL = 1.3
BASELINE = "the same model in onnxruntime inside the Python backend, requests/s"

HIDDEN, DIGITS, SIZE = 32, 10, 8
SEED = 0

MODEL = """\
import onnxruntime


class Model:
    def __init__(self, folder, parameters, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(folder / "model.onnx", options, ["CPUExecutionProvider"])

    def __call__(self, inputs):
        return dict(zip(("DIGIT", "SCORES"), self._session.run(["DIGIT", "SCORES"], dict(inputs))))
"""

Rates = Mapping[tuple[str, str, int], Sequence[float]]
"""(`worker` or `digits`, template, clients) -> requests/s, one value for each round."""


def classifier(hidden: Sequence[int] = (HIDDEN,)) -> bytes:
    """Returns a perceptron with random weights: IMAGE [8, 8] -> DIGIT [1] and SCORES [10].

    Args:
        hidden: Width of each hidden layer.
    """
    rng = np.random.default_rng(SEED)
    layers = pairwise((SIZE * SIZE, *hidden, DIGITS))
    weights = {f"w{i}": rng.standard_normal(shape, np.float32) / shape[0] ** 0.5 for i, shape in enumerate(layers)}
    biases = {f"b{i}": np.zeros(width, np.float32) for i, width in enumerate((*hidden, DIGITS))}
    nodes = [Node("Flatten", ["IMAGE"], ["x0"])]
    for i in range(len(hidden)):
        nodes += [Node("Gemm", [f"x{i}", f"w{i}", f"b{i}"], [f"h{i}"]), Node("Relu", [f"h{i}"], [f"x{i + 1}"])]
    last = len(hidden)
    nodes += [
        Node("Gemm", [f"x{last}", f"w{last}", f"b{last}"], ["logits"]),
        Node("Softmax", ["logits"], ["SCORES"]),
        Node("ArgMax", ["SCORES"], ["DIGIT"], {"axis": 1, "keepdims": 1}),
    ]
    outputs = {"DIGIT": Tensor("INT64", ("batch", 1)), "SCORES": Tensor("FP32", ("batch", DIGITS))}
    inputs = {"IMAGE": Tensor("FP32", ("batch", SIZE, SIZE))}
    return onnx_file(Graph(nodes, inputs, outputs, {**weights, **biases}))


def application(
    folder: Path, name: str, template: str, *, normalised: bool, hidden: Sequence[int] = (HIDDEN,)
) -> TaskGraph:
    """Returns a graph with the classifier, after `normalise` of `ensembles/digits` if `normalised` is set."""
    image = {"dtype": "FP32", "shape": [SIZE, SIZE]}
    artifacts = {"model.onnx": "model.onnx"} | ({"model.py": "model.py"} if template == "python" else {})
    tasks: dict[str, Any] = {
        "classify": {
            "inputs": {"IMAGE": "normalise.NORMAL" if normalised else "inputs.IMAGE"},
            "outputs": {"DIGIT": {"dtype": "INT64", "shape": [1]}, "SCORES": {"dtype": "FP32", "shape": [DIGITS]}},
            "variants": [_variant(template, artifacts)],
        }
    }
    if normalised:
        tasks["normalise"] = {
            "inputs": {"IMAGE": "inputs.IMAGE"},
            "outputs": {"NORMAL": image},
            "variants": [_variant("python", {"model.py": "normalise.py"})],
        }
    spec = {
        "slo": {"latency_ms": 1000},
        "inputs": {"IMAGE": image},
        "outputs": {"DIGIT": "classify.DIGIT", "SCORES": "classify.SCORES"},
        "tasks": tasks,
    }
    document = {"apiVersion": "jigsaw-triton/v1", "kind": "TaskGraph", "metadata": {"name": name}, "spec": spec}
    normalise = applications_dir() / "digits" / "models" / "normalise.py"
    files = {"model.py": MODEL, "normalise.py": normalise.read_text(encoding="utf-8")}
    place = folder / name
    place.mkdir()
    (place / "model.onnx").write_bytes(classifier(hidden))
    return system.read_graph(place, json.dumps(document), files)


async def measure(progress: Progress, effort: Effort = FULL) -> list[Figure]:
    """Loads both sides in turn, directly and behind a gateway, and compares their answers."""
    installation = find_installation()
    with tempfile.TemporaryDirectory(prefix="jigsaw-bench-") as path:
        folder = Path(path)
        alone, graphs = (
            [application(folder, f"{kind}-{side}", side, normalised=kind == "digits") for side in SIDES]
            for kind in ("worker", "digits")
        )
        rates: dict[tuple[str, str, int], list[float]] = {}
        wanted = sides.one_worker_per_task(alone, system.cluster("cpu"))
        models = sides.worker_models(wanted, installation.backends)
        names = {model.graph: model.name for model in models}
        progress("onnx: starting one server with both models")
        async with system.lone_server(installation, wanted.cluster.gateway) as server:
            await server.gateway.load([model.folder for model in models])
            ports = wanted.cluster.gateway
            await _load(progress, effort, "worker", ports, {s: names[f"worker-{s}"] for s in SIDES}, rates)
        wanted = sides.one_worker_per_task(graphs, system.cluster("cpu"))
        progress("onnx: starting four workers and their gateway")
        async with sides.behind_gateway(installation, wanted):
            ports = wanted.cluster.gateway
            different = await _different(ports, [graph.name for graph in graphs])
            await _load(progress, effort, "digits", ports, {side: f"digits-{side}" for side in SIDES}, rates)
    return [*figures(rates), different_figure(different)]


async def _load(
    progress: Progress,
    effort: Effort,
    kind: str,
    ports: GatewayPorts,
    models: Mapping[str, str],
    rates: dict[tuple[str, str, int], list[float]],
) -> None:
    image = np.random.default_rng(SEED).random((1, SIZE, SIZE), np.float32)
    rounds = effort.count(TURNS) * effort.rounds
    for number in range(1 - effort.warm_ups, rounds + 1):
        progress(f"onnx, {kind}: round {number} of {rounds}")
        for count in effort.some(CLIENTS):
            for side in SIDES if number % 2 else reversed(SIDES):
                rate = await client.closed_loop(
                    ports,
                    client.request(models[side], {"IMAGE": image}),
                    count,
                    warm_up_s=effort.seconds(WARM_UP_S),
                    seconds=effort.seconds(RUN_S),
                )
                if number > 0:
                    rates.setdefault((kind, side, count), []).append(rate)


async def _different(ports: GatewayPorts, names: Sequence[str]) -> int:
    """Returns the number of images on which the answers of the graphs differ in any bit."""
    rng = np.random.default_rng(SEED)
    images = [16 * rng.random((1, SIZE, SIZE), np.float32) for _ in range(ALIKE)]
    connection = await client.connect(ports)
    try:
        answers = [[await connection.ask(client.request(n, {"IMAGE": image})) for n in names] for image in images]
    finally:
        connection.close()
    assert all(reply.status == client.OK for replies in answers for reply in replies)
    return sum(outputs(ours) != outputs(theirs) for ours, theirs in answers)


def outputs(reply: client.Reply) -> dict[str, bytes]:
    """Returns the content of each output. The Python backend returns outputs in any order."""
    found, at = {}, 0
    for output in json.loads(reply.text)["outputs"]:
        size = output["parameters"]["binary_data_size"]
        found[output["name"]] = reply.tensors[at : at + size]
        at += size
    return found


def figures(rates: Rates) -> list[Figure]:
    """Computes the ratios of throughputs."""
    return [
        ratio(
            f"dataplane.onnx.{kind}.rate.{clients(count)}",
            rates[kind, "onnxruntime", count],
            rates[kind, "python", count],
            BASELINE,
            GOAL if (kind, count) == ("worker", 1) else None,
        )
        for kind, side, count in rates
        if side == "python"
    ]


def different_figure(different: int) -> Figure:
    """Returns the figure of answers that differ."""
    note = f"of {ALIKE} images; answers of both sides that differ in any bit"
    return figure("dataplane.onnx.different", different, "answers", note, at_most=0)


def _variant(template: str, artifacts: Mapping[str, str]) -> dict[str, object]:
    return {"name": "only", "accuracy": 1.0, "template": template, "artifacts": artifacts}
