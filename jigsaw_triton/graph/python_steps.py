"""Builds the Python steps of a graph from its document, and checks their entries and their code."""

from collections.abc import Mapping
from keyword import iskeyword

from jigsaw_triton.graph.model import PythonStep, TaskGraph
from jigsaw_triton.graph.reference import TASKS
from jigsaw_triton.graph.tensors import TensorRef, TensorType
from jigsaw_triton.graph.variants import Files, check_yields
from jigsaw_triton.spec.graph_schema import GraphSpec, TaskEntry
from jigsaw_triton.spec.source import Path, Report, SourceMap, dotted
from jigsaw_triton.spec.step_file import FUNCTION, Parameters, StepFile
from jigsaw_triton.spec.words import nearest, shown

DEFAULT_LATENCY_MS = 1.0
"""Milliseconds reserved for a step without latency_ms: enough for some numpy work and the call (docs/adr/0011)."""

_STEP_KEYS = ("latency_ms", "yields")
_TASK_KEYS = {
    "for_each": "iterate in the code, which is called once per request with all rows, or in the task after it",
    "when": "decide in the code, which is called for every request",
    "counts": "count in the code",
}
"""Key that only tasks can have -> hint for a step that has it."""


def check_kind(name: str, entry: TaskEntry, source: SourceMap, report: Report) -> None:
    """Reports an entry that is neither a task nor a Python step, or that mixes keys of both.

    Args:
        name: Name of the entry.
        entry: Entry as written in the document.
        source: Lines of the document.
        report: Report to which mistakes are added.
    """
    path = (*TASKS, name)
    written = {key for key in (*_STEP_KEYS, *_TASK_KEYS) if (*path, key) in source}
    if entry.python is None:
        if not entry.variants and (*path, "variants") not in source and (*path, "python") not in source:
            hint = f"add variants, or python with the path of a file that defines a function {FUNCTION}"
            report.add(path, f"missing key 'variants' in {dotted(path)}", hint)
        for key in sorted(written.intersection(_STEP_KEYS)):
            hint = "write it in each variant instead" if key == "yields" else "remove it: model latencies are measured"
            report.add((*path, key), f"only a Python step can have the key '{key}' here", hint)
        return
    if entry.variants:
        report.add(path, f"{name} has both variants and python", "keep one of the two")
    for key in sorted(written.intersection(_TASK_KEYS)):
        report.add((*path, key), f"a Python step cannot have the key '{key}'", _TASK_KEYS[key])
    for side, tensors in (("inputs", entry.inputs), ("outputs", entry.outputs)):
        for tensor, declared in tensors.items():
            if declared.shape == []:
                message = f"'{tensor}' of a Python step has no dimension, which only tensors of models may have"
                report.add((*path, side, tensor), message, "write shape: [1]")


def build_step(
    name: str,
    entry: TaskEntry,
    inputs: Mapping[str, TensorRef],
    found: Mapping[str, StepFile],
    files: Files,
    source: SourceMap,
    report: Report,
) -> PythonStep:
    """Builds the Python step of an entry, and reports mistakes in the entry and in its file.

    Args:
        name: Name of the step.
        entry: Entry with the key `python`.
        inputs: Inputs whose references resolve.
        found: Path as written -> content of the file, for the files that exist.
        files: Files that the graph refers to.
        source: Lines of the document.
        report: Report to which mistakes are added.
    """
    assert entry.python is not None
    path = (*TASKS, name)
    python = (*path, "python")
    files.path(entry.python, python, hint=f"create it, and define a function {FUNCTION} in it")
    file = found.get(entry.python, StepFile())
    for flaw in file.flaws:
        where = f"{entry.python}:{flaw.line}" if flaw.line else entry.python
        report.add(python, f"{where}: {flaw.message}", flaw.hint)
    if file.parameters is not None:
        _check_parameters(entry, file.parameters, python, report)
    check_yields(entry.yields, entry, path, path, source, report)
    return PythonStep(
        name=name,
        inputs=inputs,
        outputs={key: TensorType(value.dtype, value.served_shape) for key, value in entry.outputs.items()},
        file=entry.python,
        source=file.source,
        latency_ms=DEFAULT_LATENCY_MS if entry.latency_ms is None else entry.latency_ms,
        yields=dict(entry.yields),
        retry=entry.retry == "once",
    )


def _check_parameters(entry: TaskEntry, parameters: Parameters, path: Path, report: Report) -> None:
    """Checks that the function has a parameter for each input, and requires no others."""
    where = f"{entry.python}:{parameters.line}"
    for name in entry.inputs:
        if name not in parameters.names and not parameters.any_name:
            hint = nearest(name, parameters.names, "parameters") or f"write def {FUNCTION}({', '.join(entry.inputs)})"
            if not name.isidentifier() or iskeyword(name):
                hint = f"rename the input, which cannot be a parameter's name, or write def {FUNCTION}(**inputs)"
            report.add(path, f"{where}: {FUNCTION} has no parameter for the input {shown(name)}", hint)
    for name in parameters.required:
        if name not in entry.inputs:
            hint = "add the input, or give the parameter a default"
            message = f"{where}: {FUNCTION} requires the parameter {shown(name)}, but the step has no such input"
            report.add(path, message, hint)


def check_time(graph: TaskGraph, spec: GraphSpec, report: Report) -> None:
    """Reports an SLO whose latency is used up by the Python steps."""
    if graph.steps and graph.tasks and graph.tasks_ms <= 0:
        hint = "raise latency_ms of the SLO, or lower that of the steps"
        message = (
            f"Python steps reserve {graph.steps_ms:g} ms and leave the tasks none of the {spec.slo.latency_ms:g} ms"
        )
        report.add(("spec", "slo", "latency_ms"), message, hint)
