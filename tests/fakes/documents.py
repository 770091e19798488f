"""A valid graph.yaml and a valid cluster.yaml, with functions that edit them."""

from pathlib import Path

from jigsaw_triton.graph.build import build_graph
from jigsaw_triton.graph.model import TaskGraph
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


CLASSIFY = "    classify:\n"
VARIANT = "variants: [{name: a, accuracy: 1, template: emulated}]"


def extra(name: str, inputs: str, *, more: str = "", outputs: str = "{Y: {dtype: FP32, shape: [1]}}") -> str:
    """Returns the line of another task, to insert before classify."""
    return f"    {name}: {{inputs: {inputs}, outputs: {outputs}, {more}{VARIANT}}}\n{CLASSIFY}"


def used(name: str) -> tuple[str, str]:
    """Returns the edit that adds the output Y of a task to the graph's outputs."""
    return ("    LABELS: ", f"    OF_{name}: {name}.Y\n    LABELS: ")
