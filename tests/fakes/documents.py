"""A valid graph.yaml and a valid cluster.yaml, with functions that introduce errors into them."""

import json
from pathlib import Path
from typing import Any

from jigsaw_triton.graph.build import build_graph
from jigsaw_triton.graph.model import TaskGraph, TensorType
from jigsaw_triton.spec.load import load_graph

TEMPLATES = ("emulated", "onnxruntime", "python")

GRAPH = """\
apiVersion: jigsaw-triton/v1
kind: TaskGraph
metadata: {name: traffic}
spec:
  slo:
    latency_ms: 250
    accuracy: 0.9
  inputs:
    FRAME: {dtype: UINT8, shape: [-1, -1, 3]}
  outputs:
    BOXES: detect.BOXES
    LABELS: classify.LABEL
  tasks:
    detect:
      inputs:
        IMAGE: inputs.FRAME
      outputs:
        BOXES: {dtype: FP32, shape: [-1, 4]}
        CROPS: {dtype: FP32, shape: [-1, 3, 64, 64]}
        SCORE: {dtype: FP32, shape: [1]}
      variants:
        - {name: n, accuracy: 28.0, template: emulated, yields: {CROPS: 2.6}}
        - {name: s, accuracy: 37.4, template: emulated, yields: {CROPS: 5.5}}
    classify:
      for_each: detect.CROPS
      when: {tensor: detect.SCORE, above: 0.5, probability: 0.7}
      inputs:
        CROP: detect.CROPS
      outputs:
        LABEL: {dtype: INT64, shape: [1]}
      variants:
        - {name: a, accuracy: 1, template: emulated}
"""

CLUSTER = """\
apiVersion: jigsaw-triton/v1
kind: Cluster
spec:
  engine: local
  nodes:
    - name: b
      gpus: [{model: A100-80GB, count: 2}]
    - name: a
      gpus:
        - {model: H100-80GB}
        - {model: A100-80GB, count: 2}
  gateway: {http: 9000, grpc: 9001, metrics: 9002}
"""


def edited(text: str, *edits: tuple[str, str]) -> str:
    """Returns `text` with replacements, each of which must apply exactly once."""
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
        text = text.replace(old, new)
    return text


def line_of(text: str, part: str) -> int:
    """Returns the 1-based number of the only line that contains `part`."""
    found = [number for number, line in enumerate(text.splitlines(), 1) if part in line]
    assert len(found) == 1, f"{part!r} is on lines {found}"
    return found[0]


def built(text: str, folder: Path, *, require_files: bool = False) -> TaskGraph:
    """Writes the text to `folder` as graph.yaml and returns its graph."""
    (folder / "graph.yaml").write_text(text)
    return build_graph(load_graph(folder), templates=TEMPLATES, require_files=require_files)


def to_document(graph: TaskGraph) -> dict[str, Any]:
    """A graph as the content of the graph.yaml that describes it."""

    def tensor(kind: TensorType) -> dict[str, Any]:
        return {"dtype": kind.dtype, "shape": list(kind.shape)}

    tasks: dict[str, Any] = {}
    for task in graph.tasks.values():
        tasks[task.name] = {
            "inputs": {name: str(ref) for name, ref in task.inputs.items()},
            "outputs": {name: tensor(kind) for name, kind in task.outputs.items()},
            "variants": [
                {
                    "name": v.name,
                    "accuracy": v.accuracy,
                    "template": v.template,
                    "artifacts": {name: path.name for name, path in v.artifacts.items()},
                    "parameters": dict(v.parameters),
                    "yields": dict(v.yields),
                }
                for v in task.variants
            ],
        }
        if not task.retry:
            tasks[task.name]["retry"] = "never"
        if task.counts:
            tasks[task.name]["counts"] = dict(task.counts)
        if task.for_each is not None:
            tasks[task.name]["for_each"] = str(task.for_each)
        if task.when is not None:
            bound = {"below": task.when.below} if task.when.above is None else {"above": task.when.above}
            tasks[task.name]["when"] = {
                "tensor": str(task.when.tensor),
                "probability": task.when.probability,
                **bound,
            }
    for step in graph.steps.values():
        tasks[step.name] = {
            "python": step.file,
            "inputs": {name: str(ref) for name, ref in step.inputs.items()},
            "outputs": {name: tensor(kind) for name, kind in step.outputs.items()},
            "latency_ms": step.latency_ms,
            "yields": dict(step.yields),
            "retry": "once" if step.retry else "never",
        }
    slo = graph.slo
    return {
        "apiVersion": "jigsaw-triton/v1",
        "kind": "TaskGraph",
        "metadata": {"name": graph.name},
        "spec": {
            "slo": {
                "latency_ms": slo.latency_ms,
                "percentile": slo.percentile,
                "accuracy": slo.accuracy,
                "accuracy_mode": slo.accuracy_mode,
            },
            "inputs": {name: tensor(value.type) for name, value in graph.inputs.items()},
            "outputs": {name: str(ref) for name, ref in graph.outputs.items()},
            "tasks": tasks,
            "target": graph.target,
            "overload": graph.overload,
            "priority": graph.priority,
            "weight": graph.weight,
        },
    }


def to_text(document: dict[str, Any]) -> str:
    """A document as JSON, which is YAML too."""
    return json.dumps(document, indent=1)
