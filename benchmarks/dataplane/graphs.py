"""Graphs for the benchmarks. Their models do little work, or work of known duration, so the data plane dominates."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import system
from jigsaw_triton.graph.model import TaskGraph

FLOATS = 16
"""Floats in a request and between stages, by default."""

ROWS = 3
"""Rows that a request fans out to."""

MODEL = """\
class Model:
    def __init__(self, folder, parameters, threads):
        pass

    def __call__(self, inputs):
        x = inputs["X"]
        return {{"Y": {expression}}}
"""

STEP = """\
def step(X):
    return {"Y": X * 2}
"""

TWICE = "x * 2"
ROWS_OF = f"x[:, None].repeat({ROWS}, axis=1)"
MULTIPLES = "x[:, None] * __import__('numpy').arange(1, 2 + int(x[0, 0]) % 5, dtype='f4')[:, None]"
"""Expression for one to five rows, depending on the first float: 1x, 2x, 3x ... For one request at a time."""

SLEEPS = 77.0
"""Input that makes the model of `sleeper` sleep."""

SLEEPY = f"(__import__('time').sleep(60) or x) if (x == {SLEEPS}).any() else x * 2"

Document = dict[str, Any]


def chain(
    folder: Path,
    name: str,
    *,
    stages: Sequence[str] = ("first", "second"),
    floats: int = FLOATS,
    target: str = "auto",
    slo_ms: int = 1000,
) -> TaskGraph:
    """Returns a chain of stages that each double their input."""
    tasks = _chained({stage: _python(TWICE, [floats]) for stage in stages})
    return _read(folder, _document(name, tasks, floats=floats, target=target, slo_ms=slo_ms), {TWICE})


def stepped(folder: Path, name: str) -> TaskGraph:
    """Returns a chain of a stage and a Python step that each double their input."""
    output = {"Y": {"dtype": "FP32", "shape": [FLOATS]}}
    tasks = _chained({"first": _python(TWICE, [FLOATS]), "second": {"python": "step.py", "outputs": output}})
    return _read(folder, _document(name, tasks), {TWICE}, {"step.py": STEP})


def sleeper(folder: Path, name: str) -> TaskGraph:
    """Returns a graph of one stage that doubles its input, and sleeps for a minute if the input is SLEEPS."""
    tasks = _chained({"work": _python(SLEEPY, [FLOATS])})
    return _read(folder, _document(name, tasks, slo_ms=5000), {SLEEPY})


def fan_out(folder: Path, name: str, *, target: str = "auto") -> TaskGraph:
    """Returns a graph whose first stage makes ROWS rows, and whose second stage doubles each row."""
    return _rows(folder, name, ROWS_OF, ROWS, target)


def multiples(folder: Path, name: str) -> TaskGraph:
    """Returns a graph whose first stage makes rows that depend on the request, and whose second stage doubles each."""
    return _rows(folder, name, MULTIPLES, 3.0, "auto")


def fixed_rows(folder: Path, name: str) -> TaskGraph:
    """Returns `fan_out` written for a native ensemble: the second stage takes all rows of a request at once."""
    tasks = _chained({"first": _python(ROWS_OF, [ROWS, FLOATS]), "second": _python(TWICE, [ROWS, FLOATS])})
    return _read(folder, _document(name, tasks), {ROWS_OF, TWICE})


def emulated(
    folder: Path, name: str, *, stages: Sequence[str] = ("work",), slo_ms: int, target: str = "auto"
) -> TaskGraph:
    """Returns a chain of emulated stages, which take the time in their profiles."""
    variant = {"name": "only", "accuracy": 1.0, "template": "emulated"}
    tasks = _chained({stage: _task([FLOATS], variant) for stage in stages})
    return _read(folder, _document(name, tasks, slo_ms=slo_ms, target=target), set())


def _rows(folder: Path, name: str, expression: str, rows: float, target: str) -> TaskGraph:
    first = _python(expression, [-1, FLOATS], yields={"Y": rows})
    tasks = _chained({"first": first, "second": _python(TWICE, [FLOATS])})
    tasks["second"]["for_each"] = "first.Y"
    return _read(folder, _document(name, tasks, target=target), {expression, TWICE})


def _read(
    folder: Path, document: Document, expressions: set[str], others: Mapping[str, str] | None = None
) -> TaskGraph:
    files = {_file(expression): MODEL.format(expression=expression) for expression in expressions}
    # Every JSON document is a YAML document.
    return system.read_graph(folder / document["metadata"]["name"], json.dumps(document), {**files, **(others or {})})


def _document(
    name: str, tasks: Document, *, floats: int = FLOATS, target: str = "auto", slo_ms: int = 1000
) -> Document:
    return {
        "apiVersion": "jigsaw-triton/v1",
        "kind": "TaskGraph",
        "metadata": {"name": name},
        "spec": {
            "target": target,
            "slo": {"latency_ms": slo_ms},
            "inputs": {"X": {"dtype": "FP32", "shape": [floats]}},
            "outputs": {"Y": f"{list(tasks)[-1]}.Y"},
            "tasks": tasks,
        },
    }


def _chained(tasks: Mapping[str, Document]) -> Document:
    """Connects each task's input to the output of the one before it, and the first to the graph's input."""
    sources = ["inputs.X", *(f"{name}.Y" for name in tasks)]
    return {
        name: {**task, "inputs": {"X": source}} for (name, task), source in zip(tasks.items(), sources, strict=False)
    }


def _task(shape: Sequence[int], variant: Document) -> Document:
    return {"outputs": {"Y": {"dtype": "FP32", "shape": list(shape)}}, "variants": [variant]}


def _python(expression: str, shape: Sequence[int], yields: Mapping[str, float] | None = None) -> Document:
    variant: Document = {
        "name": "only",
        "accuracy": 1.0,
        "template": "python",
        "artifacts": {"model.py": _file(expression)},
    }
    return _task(shape, {**variant, "yields": dict(yields)} if yields else variant)


def _file(expression: str) -> str:
    return {TWICE: "twice.py", ROWS_OF: "rows_of.py", MULTIPLES: "multiples.py", SLEEPY: "sleepy.py"}[expression]
