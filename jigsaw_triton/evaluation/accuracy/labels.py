"""Reads the labelled set of an application: an .npz file, or a Python file that makes the requests.

Each labelled request is a mapping from names to values:

- the name of each input of the graph: its tensor, without a batch dimension;
- `task.OUTPUT`: the right value of that tensor. With the metric `top1` it is the number of the right element;
- in a Python file, any other name: whatever its metrics need.

An .npz file has an array for each name, with the requests along the first dimension. A Python file has a function
`examples`, which yields the mappings, and the functions that its metrics name. Its code runs in this process.
"""

import importlib.util
import sys
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.accuracy.metrics import BUILT_IN, Score
from jigsaw_triton.evaluation.profiling.tensors import conforming
from jigsaw_triton.graph.accuracies import ARRAYS
from jigsaw_triton.graph.measured import Labels
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.graph.tensors import GRAPH_INPUTS, TensorRef
from jigsaw_triton.runtime.dtypes import Array

EXAMPLES = "examples"
"""Function of a Python file that yields the labelled requests."""

_UNREADABLE = (OSError, ValueError, TypeError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)
"""Errors of numpy for files that are no archives of plain arrays, or damaged ones. A single array is a TypeError."""

Function = Callable[[Mapping[str, Array], Mapping[str, Any]], Score]
"""Metric of the user's own: a function of the tensors of a request, by `task.OUTPUT`, and its labels."""


@dataclass(frozen=True, slots=True)
class Request:
    """A labelled request.

    Attributes:
        inputs: Inputs of the graph, without a batch dimension.
        labels: All other values by name; those of tensors of the graph have the type of the tensor.
    """

    inputs: Mapping[TensorRef, Array]
    labels: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """A labelled set.

    Attributes:
        name: Path of its file as graph.yaml has it.
        requests: Requests of the set, at least one.
        functions: Metrics of the user's own, by name.
    """

    name: str
    requests: Sequence[Request]
    functions: Mapping[str, Function] = field(default_factory=dict)


def read_labels(graph: TaskGraph, labels: Labels, limit: int | None = None) -> LabelledSet:
    """Reads a labelled set.

    Args:
        graph: Graph whose tensors the set has.
        labels: File of the set, and its metrics.
        limit: Largest number of requests to read; None for all.

    Raises:
        InputError: The file is missing, its code fails, or a value does not have the type of its tensor.
    """
    name = labels.file.relative_to(graph.folder).as_posix()
    if not labels.file.is_file():
        hint = f"run `jigsaw-triton fetch {graph.folder}`, or the script that writes the file"
        raise InputError("there is no such file", where=str(labels.file), hint=hint)
    ranked = _ranked(graph, labels)
    functions: dict[str, Function] = {}
    if labels.file.suffix == ARRAYS:
        requests = [_request(graph, ranked, labels, row, at) for at, row in enumerate(_rows(graph, labels, limit))]
    else:
        with _own_code(labels.file):
            module = _module(labels.file)
            metrics = [*labels.tasks.values(), *([labels.graph] if labels.graph is not None else [])]
            for metric in metrics:
                if metric.name not in BUILT_IN:
                    functions[metric.name] = _function(module, metric.name, labels.file)
            rows: Iterable[Any] = islice(_function(module, EXAMPLES, labels.file)(), limit)
            requests = [_request(graph, ranked, labels, row, at) for at, row in enumerate(rows)]
    if not requests:
        raise InputError("there are no requests in it", where=str(labels.file), hint="add some")
    return LabelledSet(name, requests, functions)


def scored(function: Function, file: Path, tensors: Mapping[str, Array], labels: Mapping[str, Any]) -> Score:
    """Calls a metric of the user's own.

    Raises:
        InputError: The function fails, or returns something else than two numbers.
    """
    with _own_code(file):
        result = function(tensors, labels)
        try:
            points, of = map(float, result)
        except (TypeError, ValueError):
            points, of = np.nan, np.nan
        if not (np.isfinite(points) and np.isfinite(of) and of >= 0):
            name = getattr(function, "__name__", "the metric")
            hint = "return the points of the answer and those of a perfect one"
            raise InputError(f"{name} returned {result!r}, not two numbers", where=str(file), hint=hint)
    return Score(points, of)


def _ranked(graph: TaskGraph, labels: Labels) -> set[str]:
    """Returns the tensors whose labels are numbers of elements, not values."""
    found = {str(TensorRef(task, m.output)) for task, m in labels.tasks.items() if m.name == "top1"}
    if labels.graph is not None and labels.graph.name == "top1":
        found.add(str(graph.outputs[labels.graph.output]))
    return found


def _rows(graph: TaskGraph, labels: Labels, limit: int | None) -> Iterator[Mapping[str, Any]]:
    where = str(labels.file)
    try:
        with np.load(labels.file, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except _UNREADABLE as error:
        raise InputError(f"the file cannot be read ({error})", where=where, hint="save it with numpy.savez") from error
    known = {*graph.inputs, *(str(TensorRef(node.name, out)) for node in graph.in_order() for out in node.makes)}
    if unknown := sorted(arrays.keys() - known):
        raise InputError(
            f"there is no tensor '{unknown[0]}' in the graph", where=where, hint="name arrays INPUT or task.OUTPUT"
        )
    lengths = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        sizes = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        hint = "save arrays whose first dimensions are equal"
        raise InputError(f"the arrays have different numbers of requests: {sizes}", where=where, hint=hint)
    for row in range(min(next(iter(lengths.values()), 0), limit if limit is not None else sys.maxsize)):
        yield {name: array[row] for name, array in arrays.items()}


def _request(graph: TaskGraph, ranked: set[str], labels: Labels, row: Any, at: int) -> Request:
    where = f"{labels.file}, request {at + 1}"
    if not isinstance(row, Mapping):
        hint = "yield a dictionary of the tensors of one request"
        raise InputError(f"{EXAMPLES} yielded {type(row).__name__}, not a mapping", where=where, hint=hint)
    inputs: dict[TensorRef, Array] = {}
    for name in graph.inputs:
        ref = TensorRef(GRAPH_INPUTS, name)
        if name not in row:
            raise InputError(f"there is no input '{name}' of the graph", where=where, hint="add its tensor")
        inputs[ref] = _tensor(graph, ref, row[name], name, where)
    tensors = {str(TensorRef(n.name, out)): TensorRef(n.name, out) for n in graph.in_order() for out in n.makes}
    others: dict[str, Any] = {}
    for name, value in row.items():
        if name in ranked:
            others[name] = np.asarray(value)
            if others[name].dtype.kind not in "iu":
                hint = "give the number of the right element"
                raise InputError(f"the label of {name} is not an integer", where=where, hint=hint)
        elif name in tensors:
            others[name] = _tensor(graph, tensors[name], value, name, where)
        elif name not in graph.inputs:
            others[name] = value
    return Request(inputs, others)


def _tensor(graph: TaskGraph, ref: TensorRef, value: Any, name: str, where: str) -> Array:
    wanted, array = graph.type_of(ref), np.asarray(value)
    found = conforming(array, wanted)
    if found is None:
        message = f"{name} is {array.dtype} {list(array.shape)}, but the tensor is {wanted.dtype} {list(wanted.shape)}"
        raise InputError(message, where=where, hint="leave out the batch dimension, and convert it")
    return found


def _module(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location("jigsaw_labels", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Classes with annotations look their module up.
    spec.loader.exec_module(module)
    return module


def _function(module: Any, name: str, file: Path) -> Any:
    found = getattr(module, name, None)
    if not callable(found):
        raise InputError(f"the file defines no function {name}", where=str(file), hint="define it, or name another")
    return found


@contextmanager
def _own_code(file: Path) -> Iterator[None]:
    """Runs code of the user's own, which may import modules of its folder, and reports its errors with their line."""
    folder = str(file.parent)
    sys.path.insert(0, folder)
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else (lines or [None])[-1]
        place = f"{file}:{line}" if line else str(file)
        raise InputError(
            f"the code failed: {type(error).__name__}: {error}", where=place, hint="correct the file of labels"
        ) from error
    finally:
        sys.path.remove(folder)
