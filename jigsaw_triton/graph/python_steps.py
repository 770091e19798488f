"""Python steps, from the document to the domain: which entries they have, their code, what it takes."""

from collections.abc import Mapping
from keyword import iskeyword

from jigsaw_triton.graph.model import PythonStep, TaskGraph, TensorRef, TensorType
from jigsaw_triton.graph.reference import TASKS
from jigsaw_triton.graph.variants import Files, check_yields
from jigsaw_triton.spec.schema import GraphSpec, TaskEntry
from jigsaw_triton.spec.source import Path, Report, SourceMap, dotted
from jigsaw_triton.spec.step_file import FUNCTION, Parameters, StepFile
from jigsaw_triton.spec.words import nearest, shown

DEFAULT_LATENCY_MS = 1.0
"""Kept for a step that says nothing: some small numpy work and the way to it (docs/adr/0011)."""

_OF_STEPS = ("latency_ms", "yields")
_OF_TASKS = {
    "for_each": "a step is called once a request, with all rows: iterate in the code, or in the task after it",
    "when": "a step is called for each request: decide in the code",
    "counts": "count in the code",
}


def check_kind(name: str, entry: TaskEntry, source: SourceMap, report: Report) -> None:
    """Reports an entry that is neither a task nor a python step, or something of both.

    Args:
        name: Of the entry.
        entry: What it says.
        source: Of the document.
        report: Where mistakes go.
    """
    path = (*TASKS, name)
    written = {key for key in (*_OF_STEPS, *_OF_TASKS) if (*path, key) in source}
    if entry.python is None:
        if not entry.variants and (*path, "variants") not in source and (*path, "python") not in source:
            hint = f"add the models that can do it, or python: a file of your own with a function {FUNCTION}"
            report.add(path, f"{dotted(path)} lacks variants", hint)
        for key in sorted(written.intersection(_OF_STEPS)):
            hint = "yields belong to the variants" if key == "yields" else "the time of models is measured"
            report.add((*path, key), f"{key} of a task that is no python step", hint)
        return
    if entry.variants:
        report.add(path, f"{name} has both variants and python", "keep one of the two")
    for key in sorted(written.intersection(_OF_TASKS)):
        report.add((*path, key), f"{key} of a python step", _OF_TASKS[key])


def build_step(
    name: str,
    entry: TaskEntry,
    inputs: Mapping[str, TensorRef],
    found: Mapping[str, StepFile],
    files: Files,
    source: SourceMap,
    report: Report,
) -> PythonStep:
    """The python step of an entry; mistakes in it and in its file are reported.

    Args:
        name: Of the step.
        entry: With `python`.
        inputs: Those that resolve.
        found: Path as written -> what is in the file, for those that are there.
        files: Of the graph.
        source: Of the document.
        report: Where mistakes go.
    """
    assert entry.python is not None
    path = (*TASKS, name)
    here = (*path, "python")
    files.path(entry.python, here, hint=f"write it, with a function {FUNCTION}")
    file = found.get(entry.python, StepFile())
    for flaw in file.flaws:
        at = f"{entry.python}:{flaw.line}" if flaw.line else entry.python
        report.add(here, f"{at}: {flaw.message}", flaw.hint)
    if file.parameters is not None:
        _check_parameters(entry, file.parameters, here, report)
    check_yields(entry.yields, entry, path, path, source, report)
    return PythonStep(
        name=name,
        inputs=inputs,
        outputs={key: TensorType(value.dtype, tuple(value.shape)) for key, value in entry.outputs.items()},
        file=entry.python,
        source=file.source,
        latency_ms=DEFAULT_LATENCY_MS if entry.latency_ms is None else entry.latency_ms,
        yields=dict(entry.yields),
        retry=entry.retry == "once",
    )


def _check_parameters(entry: TaskEntry, parameters: Parameters, here: Path, report: Report) -> None:
    """The function takes the inputs by their names, and needs no others."""
    at = f"{entry.python}:{parameters.line}"
    for name in entry.inputs:
        if name not in parameters.names and not parameters.any_name:
            hint = nearest(name, parameters.names, "it takes") or f"add it: def {FUNCTION}({', '.join(entry.inputs)})"
            if not name.isidentifier() or iskeyword(name):
                hint = f"no parameter can be called that; write def {FUNCTION}(**inputs)"
            report.add(here, f"{at}: {FUNCTION} takes no {shown(name)}, an input of the step", hint)
    for name in parameters.needed:
        if name not in entry.inputs:
            hint = "give the step that input, or the parameter a default"
            report.add(here, f"{at}: {FUNCTION} needs {shown(name)}, which is no input of the step", hint)


def check_time(graph: TaskGraph, spec: GraphSpec, report: Report) -> None:
    """Reports python steps that leave the tasks no time."""
    if graph.steps and graph.tasks and graph.tasks_ms <= 0:
        hint = "raise latency_ms of the SLO, or lower that of the steps"
        message = f"python steps take {graph.steps_ms:g} ms of the {spec.slo.latency_ms:g} ms promised"
        report.add(("spec", "slo", "latency_ms"), message, hint)
