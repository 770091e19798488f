"""Runs Python steps: the user's own code between the tasks of a graph, served as models of a steps worker.

The code is a file with a function `step`. Its parameters are the inputs of the step: read-only numpy arrays of one
request, without a batch dimension. BYTES tensors are object arrays of bytes. It returns a mapping of outputs in the
same form, or an `Answer`, which ends the request. Each process of the steps worker calls it for one request at a time.
"""

import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np

from jigsaw_triton.runtime.dtypes import Array, Arrays, to_bytes
from jigsaw_triton.runtime.messages import plain, shortened
from jigsaw_triton.runtime.outcome import check_output
from jigsaw_triton.runtime.spec import ANSWER_PREFIX, ANSWERED_OUTPUT, StepSpec, TensorSpec

STEP_FILE = "step.py"
"""Name of the code's file in the version folder of the step's model."""


class Answer:
    """Return value of a step that ends its request early with the outputs of the graph.

    Args:
        outputs: Output of the graph -> array of one request, without a batch dimension. It must contain at least the
            outputs that the client requested.
    """

    def __init__(self, /, **outputs: Any) -> None:
        self.outputs = outputs


class StepError(Exception):
    """The user's code failed.

    Args:
        step: Name of the step.
        reason: Description of the failure, with the file and line of the code if they are known.
    """

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(plain(f"step {step}: {reason}"))


class Step:
    """The loaded code of a step.

    Args:
        folder: Version folder of the step's model.
        spec: Specification of the step.

    Raises:
        StepError: The code failed to load, or defines no function `step`.
    """

    def __init__(self, folder: Path, spec: StepSpec) -> None:
        self._name = spec.name
        self._file = spec.file
        self._outputs = {output.name: output for output in spec.outputs}
        self._answers = {answer.name: answer for answer in spec.answers}
        # Compiled by hand so that tracebacks show the user's file name, and no cache is written to Triton's folder.
        module = ModuleType(f"jigsaw_step_{spec.name}")
        module.__file__ = self._file
        sys.modules[module.__name__] = module
        try:
            source = (folder / STEP_FILE).read_bytes()
            exec(compile(source, self._file, "exec"), module.__dict__)
        except BaseException as error:
            raise self._failed(error) from error
        function = getattr(module, "step", None)
        if not callable(function):
            raise StepError(self._name, f"{self._file} defines no function step")
        self._function: Callable[..., Any] = function

    def __call__(self, inputs: Arrays) -> dict[str, Array]:
        """Runs the code for one request.

        Args:
            inputs: Inputs by name, each with a leading batch dimension of 1.

        Returns:
            All declared outputs with a leading batch dimension of 1, or the outputs of an early answer with
            `ANSWER_PREFIX`; and `ANSWERED_OUTPUT`, which distinguishes the two cases.

        Raises:
            StepError: The code raised an exception, or its outputs differ from those declared.
        """
        try:
            made = self._function(**{name: _read_only(array[0]) for name, array in inputs.items()})
        except BaseException as error:  # Includes panics of Rust libraries: a failed request must be answered too.
            raise self._failed(error) from error
        if isinstance(made, Answer):
            given = self._tensors(made.outputs, self._answers, made.outputs)
            return {**{f"{ANSWER_PREFIX}{name}": array for name, array in given.items()}, ANSWERED_OUTPUT: _flag(1)}
        if not isinstance(made, Mapping):
            raise StepError(self._name, f"{self._file}: step returned {type(made).__name__}, not outputs by name")
        return {**self._tensors(made, self._outputs, self._outputs), ANSWERED_OUTPUT: _flag(0)}

    def _tensors(
        self, made: Mapping[str, Any], declared: Mapping[str, TensorSpec], wanted: Iterable[str]
    ) -> dict[str, Array]:
        """Converts the code's outputs to tensors with a leading batch dimension of 1.

        Args:
            made: Outputs that the code returned, by name.
            declared: Declarations of the outputs, by name.
            wanted: Names of the outputs that must exist.

        Raises:
            StepError: An output is missing, was not declared, or has the wrong data type or shape.
        """
        if unknown := sorted(map(str, made.keys() - declared.keys())):
            names = ", ".join(declared)
            raise StepError(self._name, f"{self._file}: output {unknown[0]} was not declared; there are {names}")
        tensors = {}
        for name in wanted:
            array = self._array(made[name], declared[name])[None] if name in made else None
            try:
                check_output(declared[name], array, 1)
            except ValueError as error:
                raise StepError(self._name, f"{self._file}: {error}") from error
            assert array is not None
            tensors[name] = array
        return tensors

    def _array(self, made: Any, spec: TensorSpec) -> Array:
        try:
            return to_bytes(made) if spec.dtype == "BYTES" else np.asarray(made)
        except Exception as error:  # An object's conversion to an array can raise anything.
            raise StepError(self._name, f"{self._file}: output {spec.name}: {error}") from error

    def _failed(self, error: BaseException) -> StepError:
        line = _line(error, self._file)
        at = f" ({self._file}:{line})" if line else f" ({self._file})"
        # The text of a SyntaxError would repeat the line number.
        text = shortened(str(error.msg if isinstance(error, SyntaxError) else error))
        return StepError(self._name, f"{type(error).__name__}: {text}{at}")


def _flag(value: int) -> Array:
    return np.full((1, 1), value, np.uint8)


def _read_only(array: Array) -> Array:
    """Returns a read-only view of an array, which other steps may share."""
    view = array.view()
    view.flags.writeable = False
    return view


def _line(error: BaseException, file: str) -> int | None:
    """Returns the last line of the file in the traceback of an error, or None if the file is not in it."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno
    at: TracebackType | None = error.__traceback__
    lines = [number for frame, number in traceback.walk_tb(at) if frame.f_code.co_filename == file]
    return lines[-1] if lines else None
