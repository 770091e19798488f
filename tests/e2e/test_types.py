"""Tensors of every type pass unchanged through a Python and an ONNX model, with each target and protocol."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput, service_pb2, service_pb2_grpc

from jigsaw_triton.profiles.read import write_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow
from tests.e2e.clients import PROTOCOLS
from tests.e2e.system import System
from tests.fakes.onnx_files import Graph, Node, onnx_file
from tests.fakes.onnx_files import Tensor as Element
from tests.fakes.onnx_models import classifier

pytestmark = pytest.mark.e2e

TYPES = {"HALF": "FP16", "BRAIN": "BF16", "FLAG": "BOOL", "LONG": "INT64", "TEXT": "BYTES", "DATA": "UINT8"}
LARGE_BYTES = 64 * 2**20
TARGETS = {"copy": "graph", "copy-ensemble": "ensemble", "copy-bls": "bls"}
MODELS = tuple(TARGETS)

MODEL = """\
class Model:
    def __init__(self, folder, parameters, threads):
        pass

    def __call__(self, inputs):
        return {f"{name}_OUT": array for name, array in inputs.items()}
"""

CLASSIFIER = """\
apiVersion: jigsaw-triton/v1
kind: TaskGraph
metadata: {name: labels}
spec:
  slo: {latency_ms: 60000}
  inputs: {X: {dtype: FP32, shape: [4]}}
  outputs: {LABEL: classify.LABEL, TWICE: double.TWICE}
  tasks:
    classify:
      inputs: {X: inputs.X}
      outputs: {LABEL: {dtype: INT64, shape: []}, SCORES: {dtype: FP32, shape: [4]}}
      variants: [{name: only, accuracy: 1, template: onnxruntime, artifacts: {model.onnx: model.onnx}}]
    double:
      inputs: {LABEL: {from: classify.LABEL, shape: []}}
      outputs: {TWICE: {dtype: INT64, shape: []}}
      variants: [{name: only, accuracy: 1, template: python, artifacts: {model.py: model.py}}]
"""

TWICE = MODEL.replace(
    'return {f"{name}_OUT": array for name, array in inputs.items()}',
    """(count,) = inputs["LABEL"].shape
        return {"TWICE": 2 * inputs["LABEL"].reshape(count)}""",
)

COPIER = Graph(
    [Node("Identity", [tensor], [f"{tensor}_OUT"]) for tensor in TYPES],
    {tensor: Element(dtype, ("batch", "size")) for tensor, dtype in TYPES.items()},
    {f"{tensor}_OUT": Element(dtype, ("batch", "size")) for tensor, dtype in TYPES.items()},
)

Tensor = tuple[tuple[int, ...], bytes]
"""Shape with the batch dimension, and content in Triton's binary format."""


def write_copier(folder: Path, name: str, target: str) -> Path:
    """Writes an application of two tasks that return their inputs: a Python and an ONNX model."""
    folder.mkdir()
    tensors = {tensor: {"dtype": dtype, "shape": [-1]} for tensor, dtype in TYPES.items()}

    def task(source: str, suffix: str, template: str, artifact: str) -> object:
        inputs = {tensor: f"{source}.{tensor}{suffix}" for tensor in TYPES}
        outputs = {f"{tensor}_OUT": kind for tensor, kind in tensors.items()}
        variant = {"name": "only", "accuracy": 1.0, "template": template, "artifacts": {artifact: artifact}}
        return {"inputs": inputs, "outputs": outputs, "variants": [variant]}

    document = {
        "apiVersion": "jigsaw-triton/v1",
        "kind": "TaskGraph",
        "metadata": {"name": name},
        "spec": {
            "target": target,
            # The largest tensors pass through the Python model's two processes. Late requests are refused.
            "slo": {"latency_ms": 60_000},
            "inputs": tensors,
            "outputs": {f"{tensor}_OUT": f"second.{tensor}_OUT" for tensor in TYPES},
            "tasks": {
                "first": task("inputs", "", "python", "model.py"),
                "second": task("first", "_OUT", "onnxruntime", "model.onnx"),
            },
        },
    }
    (folder / "graph.yaml").write_text(json.dumps(document))
    (folder / "model.py").write_text(MODEL)
    (folder / "model.onnx").write_bytes(onnx_file(COPIER))
    rows = [
        ProfileRow(ProfileKey("cpu", task_name, "only", "1g", 1, 1), 5.0, 5.0, 5.0, 200.0, 60, "assumed")
        for task_name in ("first", "second")
    ]
    (folder / "profiles.csv").write_text(write_profiles(rows))
    return folder


def write_classifier(folder: Path) -> Path:
    """Writes an application whose models take and return tensors with the batch dimension alone."""
    folder.mkdir()
    (folder / "graph.yaml").write_text(CLASSIFIER)
    (folder / "model.onnx").write_bytes(classifier())
    (folder / "model.py").write_text(TWICE)
    rows = [
        ProfileRow(ProfileKey("cpu", task, "only", "1g", 1, 4), 5.0, 5.0, 5.0, 800.0, 60, "assumed")
        for task in ("classify", "double")
    ]
    (folder / "profiles.csv").write_text(write_profiles(rows))
    return folder


@pytest.fixture(scope="module")
def served(shared: System, tmp_path_factory: pytest.TempPathFactory) -> System:
    folder = tmp_path_factory.mktemp("apps")
    apps = [write_copier(folder / name, name, target) for name, target in TARGETS.items()]
    apps.append(write_classifier(folder / "labels"))
    shared.deploy(*apps, "--gpus", "2xcpu", "--demand", ",".join(f"{app.name}=1" for app in apps))
    return shared


def over_http(system: System, model: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    described = [
        {"name": name, "datatype": TYPES[name], "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, (shape, data) in inputs.items()
    ]
    text = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
    body = b"".join((text, *(data for _, data in inputs.values())))
    headers = {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"}
    url = f"http://127.0.0.1:{system.http}/v2/models/{model}/infer"
    with urlopen(Request(url, data=body, headers=headers), timeout=60) as answer:
        content, at = answer.read(), int(answer.headers.get("Inference-Header-Content-Length", -1))
    outputs = json.loads(content[:at] if at >= 0 else content)["outputs"]
    found = {}
    for output in outputs:
        size = output.get("parameters", {}).get("binary_data_size", 0)
        found[output["name"].removesuffix("_OUT")] = (tuple(output["shape"]), content[at : at + size])
        at += size
    return found


def over_grpc(system: System, model: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, (shape, data) in inputs.items():
        request.inputs.add(name=name, datatype=TYPES[name], shape=shape)
        request.raw_input_contents.append(data)
    with InferenceServerClient(f"127.0.0.1:{system.grpc}") as client:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(client._channel).ModelInfer(request, timeout=60)
    return {
        output.name.removesuffix("_OUT"): (tuple(output.shape), data)
        for output, data in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


ASK: Mapping[str, Callable[[System, str, Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "http": over_http,
    "grpc": over_grpc,
}


def tensors(count: int) -> dict[str, Tensor]:
    """Returns tensors of each type with this number of elements. Floats may have any bit pattern."""
    rng = np.random.default_rng(count)
    strings = [b"", b"\x00\xff\xfe", "ä".encode(), b"x" * 300]
    text = b"".join(len(strings[i % 4]).to_bytes(4, "little") + strings[i % 4] for i in range(count))
    return {
        "HALF": ((1, count), rng.bytes(2 * count)),
        "BRAIN": ((1, count), rng.bytes(2 * count)),
        "FLAG": ((1, count), rng.integers(0, 2, count, np.uint8).tobytes()),
        "LONG": ((1, count), rng.bytes(8 * count)),
        "TEXT": ((1, count), text),
        "DATA": ((1, count), rng.bytes(count)),
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("count", [0, 1, 7, 100_000])
def test_every_type_is_returned_unchanged(served: System, model: str, protocol: str, count: int) -> None:
    sent = tensors(count)
    assert ASK[protocol](served, model, sent) == sent


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", MODELS)
def test_64_mib_are_returned_unchanged(served: System, model: str, protocol: str) -> None:
    data = np.random.default_rng(1).bytes(LARGE_BYTES)
    sent = {**tensors(3), "DATA": ((1, LARGE_BYTES), data)}
    answer = ASK[protocol](served, model, sent)
    # The difference would be too large to print.
    assert answer.pop("DATA") == sent.pop("DATA") or pytest.fail("DATA differs")
    assert answer == sent


@pytest.mark.parametrize("items", [1, 3])
def test_tensors_with_the_batch_dimension_alone_are_served_with_one_dimension(served: System, items: int) -> None:
    labels = np.array([2, 0, 3][:items])
    given = InferInput("X", (items, 4), "FP32")
    given.set_data_from_numpy(np.eye(4, dtype=np.float32)[labels])
    with InferenceServerClient(f"127.0.0.1:{served.grpc}") as client:
        answer = client.infer("labels", [given], client_timeout=60)
    assert answer.as_numpy("LABEL").tolist() == labels[:, None].tolist()
    assert answer.as_numpy("TWICE").tolist() == (2 * labels)[:, None].tolist()
