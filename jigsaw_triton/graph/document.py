"""From a task graph back to its graph.yaml."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.measured import Combination, Labels, Measured, Metric
from jigsaw_triton.graph.model import PythonStep, Slo, Task, TaskGraph, Variant, When
from jigsaw_triton.graph.tensors import TensorType
from jigsaw_triton.spec.entries import API_VERSION
from jigsaw_triton.spec.yaml_writer import Inline, dump_yaml


def to_yaml(graph: TaskGraph) -> str:
    """Returns a graph.yaml that loads to an equal graph if it is saved in the folder of the graph.

    Raises:
        InputError: An artifact, a sample or the labels are outside the folder of the graph.
    """
    return dump_yaml(to_document(graph))


def to_document(graph: TaskGraph) -> dict[str, Any]:
    """Returns the content of the graph.yaml of a graph, without entries that have their default.

    Raises:
        InputError: An artifact, a sample or the labels are outside the folder of the graph.
    """
    inputs = {
        name: Inline(_tensor(value.type), **({} if value.rows == 1 else {"rows": value.rows}))
        for name, value in graph.inputs.items()
    }
    spec: dict[str, Any] = {
        "slo": _slo(graph.slo),
        "inputs": inputs,
        "outputs": {name: str(ref) for name, ref in graph.outputs.items()},
        "tasks": {
            node.name: _task(node, graph.folder) if isinstance(node, Task) else _step(node) for node in graph.in_order()
        },
    }
    others = {"target": "auto", "overload": "refuse", "priority": 0, "weight": 1.0}
    spec |= {name: getattr(graph, name) for name, default in others.items() if getattr(graph, name) != default}
    if graph.samples:
        spec["sample"] = {name: _relative(path, graph.folder) for name, path in graph.samples.items()}
    if graph.labels is not None:
        spec["labels"] = _labels(graph.labels, graph.folder)
    if graph.combinations:
        spec["combinations"] = [combination_entry(combination) for combination in graph.combinations]
    return {"apiVersion": API_VERSION, "kind": "TaskGraph", "metadata": Inline(name=graph.name), "spec": spec}


def _slo(slo: Slo) -> Inline:
    mode = {} if slo.accuracy_mode == "floor" else {"accuracy_mode": slo.accuracy_mode}
    return Inline(latency_ms=slo.latency_ms, percentile=slo.percentile, accuracy=slo.accuracy, **mode)


def _labels(labels: Labels, folder: Path) -> dict[str, Any]:
    return {
        "data": _relative(labels.file, folder),
        **({"tasks": {name: _metric(metric) for name, metric in labels.tasks.items()}} if labels.tasks else {}),
        **({"graph": _metric(labels.graph)} if labels.graph is not None else {}),
    }


def _metric(metric: Metric) -> Inline:
    return Inline(metric=metric.name, **({"output": metric.output} if metric.output else {}))


def combination_entry(combination: Combination) -> Inline:
    """Returns the entry of a combination of variants."""
    measured = {} if combination.measured is None else {"measured": measured_entry(combination.measured)}
    return Inline(variants=Inline(combination.variants), accuracy=combination.accuracy, **measured)


def measured_entry(measured: Measured) -> Inline:
    """Returns the entry of the measurement that an accuracy comes from."""
    return Inline(asdict(measured))


def _tensor(kind: TensorType) -> Inline:
    return Inline(dtype=kind.dtype, shape=list(kind.shape))


def _ends(node: Task | PythonStep) -> dict[str, Any]:
    inputs: dict[str, Any] = {name: str(ref) for name, ref in node.inputs.items()}
    outputs = {name: _tensor(kind) for name, kind in node.outputs.items()}
    if isinstance(node, Task):
        inputs |= {name: Inline({"from": inputs[name]}, shape=[]) for name in inputs if name in node.scalar_inputs}
        outputs |= {name: Inline(kind, shape=[]) for name, kind in outputs.items() if name in node.scalar_outputs}
    return {"inputs": inputs, "outputs": outputs}


def _task(task: Task, folder: Path) -> dict[str, Any]:
    return {
        **({"for_each": str(task.for_each)} if task.for_each is not None else {}),
        **({"when": _when(task.when)} if task.when is not None else {}),
        **_ends(task),
        **({"counts": dict(task.counts)} if task.counts else {}),
        **({} if task.retry else {"retry": "never"}),
        "variants": [_variant(variant, folder) for variant in task.variants],
    }


def _when(when: When) -> Inline:
    bound = {"above": when.above} if when.above is not None else {"below": when.below}
    return Inline(tensor=str(when.tensor), **bound, probability=when.probability)


def _variant(variant: Variant, folder: Path) -> Inline:
    artifacts = {name: _relative(path, folder) for name, path in variant.artifacts.items()}
    optional = {"artifacts": artifacts, "parameters": dict(variant.parameters), "yields": dict(variant.yields)}
    measured = {} if variant.measured is None else {"measured": measured_entry(variant.measured)}
    return Inline(
        name=variant.name,
        accuracy=variant.accuracy,
        template=variant.template,
        **{name: value for name, value in optional.items() if value},
        **measured,
    )


def _step(step: PythonStep) -> dict[str, Any]:
    return {
        "python": step.file,
        **_ends(step),
        "latency_ms": step.latency_ms,
        **({"yields": dict(step.yields)} if step.yields else {}),
        **({} if step.retry else {"retry": "never"}),
    }


def _relative(path: Path, folder: Path) -> str:
    if not path.is_relative_to(folder):
        raise InputError("the file is outside the folder of the graph", where=str(path), hint=f"move it into {folder}")
    return path.relative_to(folder).as_posix()
