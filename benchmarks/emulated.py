"""A chain of two tasks with emulated models, which hold their slices for a time and need little of the processors."""

from collections.abc import Mapping

ONLY: Mapping[str, float] = {"only": 1.0}
"""Accuracies of the variants of a task that has one."""

_GRAPH = """\
apiVersion: jigsaw-triton/v1
kind: TaskGraph
metadata: {{name: bench}}
spec:
  slo: {{latency_ms: {slo_ms:g}, accuracy: {accuracy:g}}}
  inputs:
    X: {{dtype: FP32, shape: [16]}}
  outputs: {{Y: classify.Y}}
  tasks:
    detect:
      inputs: {{X: inputs.X}}
      outputs:
        Y: {{dtype: FP32, shape: [16]}}
      variants:
{detect}
    classify:
      inputs: {{X: detect.Y}}
      outputs:
        Y: {{dtype: FP32, shape: [16]}}
      variants:
{classify}
"""


def chain(
    slo_ms: float,
    accuracy: float = 1.0,
    *,
    detect: Mapping[str, float] = ONLY,
    classify: Mapping[str, float] = ONLY,
) -> str:
    """Returns a graph.yaml with the tasks `detect` and `classify`, one after the other.

    Args:
        slo_ms: Latency SLO in milliseconds.
        accuracy: Accuracy SLO.
        detect: Variants of `detect` with their accuracies.
        classify: Variants of `classify` with their accuracies.
    """
    return _GRAPH.format(slo_ms=slo_ms, accuracy=accuracy, detect=_variants(detect), classify=_variants(classify))


def _variants(accuracies: Mapping[str, float]) -> str:
    lines = (f"{{name: {name}, accuracy: {accuracy:g}, template: emulated}}" for name, accuracy in accuracies.items())
    return "\n".join(f"        - {line}" for line in lines)
