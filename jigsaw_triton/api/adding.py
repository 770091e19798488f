"""Adding a task to a graph.yaml from the models that perform it."""

import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from jigsaw_triton.api.file_changes import Undo, writing
from jigsaw_triton.api.files import PathLike, load_graph
from jigsaw_triton.api.graph_changes import GRAPH_FILE, Edit, checked_graph, graph_file, save, with_edits
from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.profiling.tensors import made_up
from jigsaw_triton.graph.model import Task, TaskGraph, Variant
from jigsaw_triton.graph.tensors import GRAPH_INPUTS
from jigsaw_triton.models.comparison import described, input_mismatches, output_mismatches
from jigsaw_triton.models.describing import Described, describe
from jigsaw_triton.models.interface import Interface, ModelTensor
from jigsaw_triton.models.kinds import KINDS, ONNX
from jigsaw_triton.models.onnx_names import new_names, write_renamed
from jigsaw_triton.runtime.dtypes import Array, Arrays
from jigsaw_triton.spec.entries import API_VERSION
from jigsaw_triton.spec.files import load_text
from jigsaw_triton.spec.source import Path as Entry
from jigsaw_triton.spec.words import NAME_PATTERN
from jigsaw_triton.spec.yaml_loader import LIMIT_BYTES
from jigsaw_triton.spec.yaml_writer import Inline, dump_yaml

MODELS_FOLDER = "models"
"""Folder beside graph.yaml to which models are copied that lie elsewhere."""

_FILES_IN_A_LINE = 2
"""Largest number of files of a variant whose entry is one line."""

DEFAULT_LATENCY_MS = 1000.0
"""Latency SLO of a new graph, which its user has to choose."""


@dataclass(frozen=True, slots=True)
class Added:
    """Result of `add_models`.

    Attributes:
        file: The graph.yaml.
        graph: Graph that it now has.
        task: Name of the task.
        variants: Names of the variants that were added to the task.
        copied: Files that were copied beside the graph.yaml.
        notes: Choices that the user should look at.
    """

    file: Path
    graph: TaskGraph
    task: str
    variants: tuple[str, ...]
    copied: tuple[Path, ...]
    notes: tuple[str, ...]


def add_models(
    models: Sequence[PathLike],
    *,
    task: str,
    graph: PathLike = GRAPH_FILE,
    accuracy: Sequence[float] = (),
    inputs: Mapping[str, str] | None = None,
    samples: Arrays | None = None,
    files: Sequence[PathLike] = (),
    parameters: Mapping[str, str] | None = None,
    rename: Mapping[str, str] | None = None,
) -> Added:
    """Adds models to a graph.yaml as the variants of a task, with the inputs and outputs that they have.

    A task that exists gets them as further variants. Else it is added, with an input and an output of the graph for
    each of its own. A graph.yaml that does not exist is created. Comments and layout of one that exists are kept. If
    anything fails, all files are as before.

    Args:
        models: ONNX files, TorchScript files, Python files, folders of a Triton model repository, or folders of a
            Hugging Face model. Files outside the folder of the graph are copied into it.
        task: Name of the task.
        graph: Path of the graph.yaml or of its folder.
        accuracy: Accuracy of each model, or one for all; 1 by default.
        inputs: Input of the models -> tensor that it receives, such as `detect.CROPS`; an input of the graph by
            default.
        samples: Inputs of one item by name, without a batch dimension, for models whose files do not have their inputs
            and outputs: TorchScript files and Python files. By default those of a task that exists are random data.
        files: Further files that each model finds beside it when it is loaded, such as weights that a Python file
            reads.
        parameters: Parameters of the variants, which models with a runner of their template receive.
        rename: Input or output of an ONNX model -> name that it gets, in a copy of the file. Names that graph.yaml
            cannot have, such as `input.1`, are replaced in any case.

    Raises:
        InputError: A model cannot be described, the models differ in inputs or outputs, or the graph.yaml cannot be
            changed.
        SpecError: The graph.yaml has mistakes, or would have some with the task.
        MissingDependencyError: A Python package that runs a model is not installed.
    """
    file = graph_file(graph)
    if len(accuracy) not in (0, 1, len(models)):
        message = f"there are {len(models)} models, but {len(accuracy)} accuracies"
        raise InputError(message, where="accuracy", hint="give one for each model, or one for all")
    if not all(0 < figure < math.inf for figure in accuracy):
        raise InputError("an accuracy is not a positive number", where="accuracy", hint="write the measured one")
    accuracies = list(accuracy) if len(accuracy) > 1 else [*accuracy, 1.0][:1] * len(models)
    notes = [] if accuracy else ["accuracy is 1; write the measured one of each variant"]
    with Undo() as undo, tempfile.TemporaryDirectory(prefix="jigsaw-renamed-") as folder:
        undo.folder(file.parent)
        before = load_text(file, limit_bytes=LIMIT_BYTES) if file.exists() else None
        old = load_graph(file) if before is not None else None
        present = old.tasks.get(task) if old is not None else None
        if old is not None and present is not None and samples is None:
            samples = _random(old, present)
        found = [
            describe(Path(model), samples or {}, [Path(name) for name in files], parameters or {}) for model in models
        ]
        found = [_renamed(model, rename or {}, Path(folder, str(index))) for index, model in enumerate(found)]
        notes += [note for model in found for note in model.notes]
        variants_before = present.variants if present is not None else ()
        names = _variant_names(found, [variant.name for variant in variants_before])
        placed = [_placed(model, file.parent, undo) for model in found]
        _refuse_repeated(found, names, placed, file.parent, variants_before)
        variants = [
            _variant(model, name, figure, artifacts)
            for model, name, figure, artifacts in zip(found, names, accuracies, placed, strict=True)
        ]
        if old is None or before is None:
            text = _new(file, task, found[0], variants, inputs or {}, notes)
        else:
            text = _extended(before, old, task, found[0], variants, inputs or {}, notes)
        built = _checked(text, file, task, found, exists=present is not None)
        save(text, file, before=before)
        return Added(file, built, task, tuple(names), tuple(undo.made), tuple(notes))


def _renamed(model: Described, wanted: Mapping[str, str], folder: Path) -> Described:
    """Returns a model whose inputs and outputs have names that graph.yaml can have, in a copy of its file."""
    if model.template != ONNX:
        if wanted:
            hint = "change the names in the model"
            raise InputError("only the tensors of ONNX models can be renamed", where=str(model.path), hint=hint)
        return model
    names = new_names(model.interface, wanted, str(model.path))
    if not names:
        return model
    folder.mkdir()
    main = KINDS[ONNX].artifact
    copy = folder / f"{model.artifacts[main].stem}-renamed.onnx"
    with writing(copy):
        write_renamed(model.artifacts[main], copy, names)
    inputs, outputs = (
        {names.get(name, name): tensor for name, tensor in tensors.items()}
        for tensors in (model.interface.inputs, model.interface.outputs)
    )
    note = f"in {MODELS_FOLDER}/{copy.name} " + ", ".join(f"'{old}' is called {new}" for old, new in names.items())
    return replace(
        model,
        artifacts={**model.artifacts, main: copy},
        interface=replace(model.interface, inputs=inputs, outputs=outputs),
        notes=(*model.notes, note),
    )


def _extended(
    text: str,
    graph: TaskGraph,
    task: str,
    model: Described,
    variants: Sequence[Mapping[str, Any]],
    inputs: Mapping[str, str],
    notes: list[str],
) -> str:
    """Returns the text of a graph.yaml with the task, or with further variants of it."""
    tasks: Entry = ("spec", "tasks")
    edits: list[Edit] = []
    if task in graph.steps:
        raise InputError("this is a Python step", where=task, hint="give the task another name")
    if task in graph.tasks:
        if inputs:
            hint = "change its inputs in the file, or give the new task another name"
            raise InputError("the task exists, with inputs of its own", where=task, hint=hint)
        count = len(graph.tasks[task].variants)
        edits += [Edit((*tasks, task, "variants", count + index), variant) for index, variant in enumerate(variants)]
    else:
        entry, given, made = _task(task, model.interface, graph, inputs, notes)
        edits += [Edit(("spec", "inputs", name), kind) for name, kind in given.items()]
        edits += [Edit(("spec", "outputs", name), ref) for name, ref in made.items()]
        edits.append(Edit((*tasks, task), {**entry, "variants": list(variants)}))
    return with_edits(text, edits, where=str(graph.folder / GRAPH_FILE))


def _new(
    file: Path,
    task: str,
    model: Described,
    variants: Sequence[Mapping[str, Any]],
    inputs: Mapping[str, str],
    notes: list[str],
) -> str:
    """Returns the text of a new graph.yaml."""
    folder = file.resolve().parent.name
    entry, given, made = _task(task, model.interface, None, inputs, notes)
    notes.append(f"latency_ms is {DEFAULT_LATENCY_MS:g}; write the latency that clients need")
    document = {
        "apiVersion": API_VERSION,
        "kind": "TaskGraph",
        "metadata": Inline(name=folder if re.fullmatch(NAME_PATTERN, folder) else task),
        "spec": {
            "slo": Inline(latency_ms=DEFAULT_LATENCY_MS),
            "inputs": given,
            "outputs": made,
            "tasks": {task: {**entry, "variants": list(variants)}},
        },
    }
    return dump_yaml(document)


def _task(
    task: str, interface: Interface, graph: TaskGraph | None, inputs: Mapping[str, str], notes: list[str]
) -> tuple[dict[str, Any], dict[str, Inline], dict[str, str]]:
    """Returns the entry of a new task, and the inputs and outputs of the graph that it adds."""
    for name in inputs:
        if name not in interface.inputs:
            hint = f"the model has {described(interface.inputs)}"
            raise InputError(f"the model has no input '{name}'", where="input", hint=hint)
    given: dict[str, Inline] = {}
    sources: dict[str, Any] = {}
    for name, tensor in interface.inputs.items():
        if name in interface.optional and name not in inputs:
            notes.append(f"input {name} has a default and is left out")
            continue
        item = _item(name, tensor)
        ref = inputs.get(name)
        if ref is None:
            served = Inline(dtype=tensor.dtype, shape=list(item) or [1])
            own = name if graph is None or _is_free(name, served, graph) else f"{task}_{name}"
            if graph is None or own not in graph.inputs:
                given[own] = served
            ref = f"{GRAPH_INPUTS}.{own}"
        sources[name] = ref if item else Inline({"from": ref}, shape=[])
    outputs: dict[str, Inline] = {}
    made: dict[str, str] = {}
    for name, tensor in interface.outputs.items():
        if tensor.dtype is None:
            notes.append(f"output {name} is left out, because it is no tensor of a type that Triton has")
            continue
        outputs[name] = Inline(dtype=tensor.dtype, shape=list(_item(name, tensor)))
        made[name if graph is None or name not in graph.outputs else f"{task}_{name}"] = f"{task}.{name}"
    if not outputs:
        hint = "export the model with tensors; skl2onnx does so with options={'zipmap': False}"
        raise InputError("the model has no output that Triton can carry", where=task, hint=hint)
    return {"inputs": sources, "outputs": outputs}, given, made


def _random(graph: TaskGraph, task: Task) -> dict[str, Array]:
    """Returns random inputs of a task, as its models take them."""
    rng = np.random.default_rng(1)
    made = {name: made_up(graph.input_type(task, name), rng) for name in task.inputs}
    return {name: array.reshape(()) if name in task.scalar_inputs else array for name, array in made.items()}


def _is_free(name: str, served: Mapping[str, Any], graph: TaskGraph) -> bool:
    """Returns True if the graph has no input of this name, or one of this type, which the task can share."""
    kind = graph.inputs[name].type if name in graph.inputs else None
    return kind is None or (kind.dtype, list(kind.shape)) == (served["dtype"], served["shape"])


def _item(name: str, tensor: ModelTensor) -> tuple[int, ...]:
    """Returns the dimensions of one item.

    Raises:
        InputError: A graph.yaml cannot declare the tensor.
    """
    if re.fullmatch(NAME_PATTERN, name) is None:
        hint = "change the model to use names of a letter, followed by letters, digits, '_' and '-'"
        raise InputError(f"the tensor '{name}' has a name that graph.yaml cannot have", where=name, hint=hint)
    if tensor.dtype is None:
        raise InputError("the input is no tensor of a type that Triton has", where=name, hint="export another model")
    if tensor.item is None:
        hint = "export the model with a batch dimension" if tensor.shape == () else "write the task by hand"
        why = "has no batch dimension" if tensor.shape == () else "has a shape that the file does not say"
        raise InputError(f"the tensor {why}", where=name, hint=hint)
    return tensor.item


def _variant(model: Described, name: str, accuracy: float, artifacts: Mapping[str, str]) -> dict[str, Any]:
    """Returns the entry of a variant: one line, or one for each file if there are more than two."""
    parameters = {"parameters": Inline(model.parameters)} if model.parameters else {}
    one_line = len(artifacts) <= _FILES_IN_A_LINE
    files = Inline(artifacts) if one_line else dict(artifacts)
    entry = {"name": name, "accuracy": accuracy, "template": model.template, "artifacts": files, **parameters}
    return Inline(entry) if one_line else entry


def _variant_names(models: Sequence[Described], taken: Sequence[str]) -> list[str]:
    """Returns a valid and unused name for each model."""
    names: list[str] = []
    for model in models:
        base = re.sub(r"[^A-Za-z0-9_-]", "_", model.name)[:60]
        base = base if re.fullmatch(NAME_PATTERN, base) else f"v{base}"[:60]
        number, name = 1, base
        while name in taken or name in names:
            number += 1
            name = f"{base}_{number}"
        names.append(name)
    return names


def _placed(model: Described, folder: Path, undo: Undo) -> dict[str, str]:
    """Copies files that lie outside the graph's folder into it; returns the artifacts with their relative paths."""
    root = folder.resolve()
    artifacts = {}
    for name, path in model.artifacts.items():
        source = path.resolve()
        if not source.is_file():
            raise InputError("there is no such file", where=str(path), hint="it belongs to the model; put it there")
        if not source.is_relative_to(root):
            # The files of a folder have names that Triton or the model prescribes, so several models share them.
            single = name == KINDS[model.template].artifact and model.path.is_file()
            own = root / MODELS_FOLDER if single else root / MODELS_FOLDER / model.name
            target = own / path.name
            undo.copy(source, target, hint=f"rename {model.path.name}")
            source = target
        artifacts[name] = source.relative_to(root).as_posix()
    return artifacts


def _refuse_repeated(
    models: Sequence[Described],
    names: Sequence[str],
    placed: Sequence[Mapping[str, str]],
    folder: Path,
    present: Sequence[Variant],
) -> None:
    """Refuses models that the task has already, and those that are given twice.

    Raises:
        InputError: Two variants would have the same template and files.
    """
    root = folder.resolve()
    known = {(variant.template, frozenset(variant.artifacts.items())): variant.name for variant in present}
    for model, name, artifacts in zip(models, names, placed, strict=True):
        files = frozenset((artifact, root / path) for artifact, path in artifacts.items())
        same = known.setdefault((model.template, files), name)
        if same != name:
            hint = f"change '{same}' in the file instead"
            raise InputError(f"the variant '{same}' has this model already", where=str(model.path), hint=hint)


def _checked(text: str, file: Path, task: str, models: Sequence[Described], *, exists: bool) -> TaskGraph:
    """Builds the graph and compares the models with it.

    Raises:
        InputError: A model cannot be a variant of the task, because it has other inputs or outputs.
        SpecError: There are mistakes.
    """
    return checked_graph(text, file, lambda graph: _compare(graph, graph.tasks[task], models, exists=exists))


def _compare(graph: TaskGraph, task: Task, models: Sequence[Described], *, exists: bool) -> None:
    """Compares the models with a task that other models have shaped: those that it had, or the first of the new ones.

    Raises:
        InputError: A model has other inputs or outputs.
    """
    for index, model in enumerate(models):
        name = str(model.path)
        inputs = () if model.sampled else input_mismatches(graph, task, name, model.interface)
        outputs = output_mismatches(task, name, model.interface, exact=False)
        mismatch = next(chain(inputs, outputs), None)
        if mismatch is None:
            continue
        if index == 0 and not exists:
            return  # The task's inputs come from tensors of other types; the check of the files reports that.
        hint = f"use another task name; variants of {task.name} have the same inputs and outputs"
        if model.template == ONNX:
            hint = f"give the model's tensors the names of {task.name} with --rename OLD=NEW, or {hint}"
        raise InputError(mismatch.message, where=task.name, hint=hint)
