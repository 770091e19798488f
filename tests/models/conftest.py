"""Checks models of graphs that are written in tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jigsaw_triton.api.checking import check_models
from jigsaw_triton.errors import SpecError
from tests.fakes.model_process import kept_models as kept_models
from tests.fakes.model_process import kept_processes as kept_processes

Check = Callable[..., list[str]]

GRAPH = """\
apiVersion: jigsaw-triton/v1
kind: TaskGraph
metadata: {name: app}
spec:
  slo: {latency_ms: 100}
  inputs:
    X: {dtype: FP32, shape: [4]}
  outputs:
    LABEL: classify.LABEL
  tasks:
    classify:
      inputs:
        X: inputs.X
      outputs:
        LABEL: {dtype: INT64, shape: []}
      variants:
        - {name: only, accuracy: 1, template: onnxruntime, artifacts: {model.onnx: model.onnx}}
"""

PYTHON = GRAPH.replace("onnxruntime, artifacts: {model.onnx: model.onnx}", "python, artifacts: {model.py: model.py}")

MODEL = """\
import numpy as np


class Model:
    def __init__(self, folder, parameters, threads):
        pass

    def __call__(self, inputs):
        return {"LABEL": inputs["X"].argmax(axis=1)}
"""


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Checks the models of a graph.yaml in the test's folder; returns the notes, or the mistakes with their lines."""

    def found(graph: str, *, run: bool = False, timeout_s: float = 60) -> list[str]:
        (tmp_path / "graph.yaml").write_text(graph)
        try:
            return check_models(tmp_path, run=run, timeout_s=timeout_s)
        except SpecError as error:
            return [f"{d.line}: {d.message}; {d.hint}" for d in error.diagnostics]

    return found
