"""A run of a model on one sample, as a worker would execute it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jigsaw_triton.models.interface import ModelTensor
from jigsaw_triton.models.onnx_session import load_onnx, passes
from jigsaw_triton.runtime.dtypes import Arrays, to_triton
from jigsaw_triton.runtime.messages import plain, shortened
from jigsaw_triton.runtime.runners import load_runner
from jigsaw_triton.runtime.spec import RunnerSpec

Run = Callable[[Arrays], Arrays]
"""Function that runs a model on inputs by name, and returns its outputs by name."""

Phase = Literal["packages", "load", "types", "run", "done"]


@dataclass(frozen=True, slots=True)
class Trial:
    """A run to make.

    Attributes:
        folder: Folder with the files of the variant, as the worker's version folder has them.
        spec: Specification of the variant.
        inputs: Inputs of one item, with a batch dimension of 1.
    """

    folder: Path
    spec: RunnerSpec
    inputs: Arrays

    def perform(self) -> "Outcome":
        """Loads the model and runs it on one item and, if items are joined, on two.

        Exceptions of any kind are outcomes.
        """
        return _attempt(self)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a trial.

    Attributes:
        phase: Phase that failed, or `done`. packages: a Python package is missing. types: the model was loaded, but has
            tensors that only workers can pass.
        error: Message of the failure, or the name of the package.
        outputs: Types of the outputs, by name.
        batch_error: Message of the failure of a batch of two items; empty if it did not fail or was not tried.
    """

    phase: Phase
    error: str = ""
    outputs: Mapping[str, ModelTensor] = field(default_factory=dict)
    batch_error: str = ""


def _attempt(trial: Trial) -> Outcome:
    try:
        run = _loaded(trial)
    except BaseException as error:
        missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__
        if isinstance(missing, ModuleNotFoundError) and missing.name:
            return Outcome("packages", missing.name)
        return Outcome("load", error_words(error))
    if trial.spec.runner == "onnxruntime" and not passes(trial.spec):
        return Outcome("types")
    try:
        made: Any = run(trial.inputs)
        if not isinstance(made, Mapping):
            return Outcome("run", f"the model returned {type(made).__name__}, not outputs by name")
        outputs = {str(name): _described(output, 1) for name, output in made.items()}
    except BaseException as error:
        return Outcome("run", error_words(error))
    return Outcome("done", outputs=outputs, batch_error=_batch_error(run, trial.inputs) if trial.spec.stack else "")


def _loaded(trial: Trial) -> Run:
    if trial.spec.runner == "onnxruntime":
        return load_onnx(trial.folder / "model.onnx", trial.spec)
    return load_runner(trial.folder, trial.spec).run


def _batch_error(run: Run, inputs: Arrays) -> str:
    try:
        made = run({name: np.concatenate([array, array]) for name, array in inputs.items()})
        wrong = [name for name, output in made.items() if not _described(output, 2).shape]
    except BaseException as error:
        return error_words(error)
    return f"the output {', '.join(wrong)} has no batch dimension of 2" if wrong else ""


def _described(output: Any, items: int) -> ModelTensor:
    """Returns the type of an output. Without a batch dimension of this size it has no dimension."""
    array = np.asarray(output)
    try:
        dtype = to_triton(array.dtype)
    except ValueError:
        dtype = None
    return ModelTensor(dtype, (-1, *array.shape[1:]) if array.shape[:1] == (items,) else ())


def error_words(error: BaseException) -> str:
    """Returns an exception on one line. Of several lines the last says most: those between are often a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{lines[0]} ... {lines[-1]}" if len(lines) > 1 else "".join(lines)
    return f"{type(error).__name__}: {plain(shortened(text))}"
