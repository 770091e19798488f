"""A task graph as JSON."""

from typing import Any

from jigsaw_triton.graph.draw import edges
from jigsaw_triton.graph.model import PythonStep, Task, TaskGraph
from jigsaw_triton.graph.tensors import TensorType


def graph_document(graph: TaskGraph) -> dict[str, Any]:
    """Returns a graph as JSON: its graph.yaml with all defaults, its edges, and its tasks in topological order."""
    slo = graph.slo
    return {
        "name": graph.name,
        "slo": {
            "latency_ms": slo.latency_ms,
            "percentile": slo.percentile,
            "accuracy": slo.accuracy,
            "accuracy_mode": slo.accuracy_mode,
        },
        "inputs": {name: _tensor(value.type) for name, value in graph.inputs.items()},
        "outputs": {name: {"from": str(ref), **_tensor(graph.type_of(ref))} for name, ref in graph.outputs.items()},
        "tasks": {name: _task(task) for name, task in graph.tasks.items()},
        "steps": {name: _step(step) for name, step in graph.steps.items()},
        "edges": [{"tensor": str(ref), "task": task, "kind": kind} for ref, task, kind in edges(graph)],
        "paths": [list(path) for path in graph.paths()],
        "target": graph.target,
        "priority": graph.priority,
        "weight": graph.weight,
    }


def _tensor(kind: TensorType) -> dict[str, Any]:
    return {"dtype": kind.dtype, "shape": list(kind.shape)}


def _step(step: PythonStep) -> dict[str, Any]:
    return {
        "inputs": {name: str(ref) for name, ref in step.inputs.items()},
        "outputs": {name: _tensor(kind) for name, kind in step.outputs.items()},
        "python": step.file,
        "latency_ms": step.latency_ms,
        "yields": dict(step.yields),
    }


def _task(task: Task) -> dict[str, Any]:
    when = task.when
    return {
        "inputs": {name: str(ref) for name, ref in task.inputs.items()},
        "outputs": {name: _tensor(kind) for name, kind in task.outputs.items()},
        "counts": dict(task.counts),
        "for_each": str(task.for_each) if task.for_each is not None else None,
        "when": {
            "tensor": str(when.tensor),
            "above": when.above,
            "below": when.below,
            "probability": when.probability,
        }
        if when is not None
        else None,
        "variants": [{"name": v.name, "accuracy": v.accuracy, "template": v.template} for v in task.variants],
    }
