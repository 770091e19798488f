"""Python steps: the user's own code between the tasks of a graph, as models of a steps worker.

The code is a file with a function `step`. Its parameters are the step's inputs, numpy arrays of one request without a
batch dimension, not to be written to; BYTES are object arrays of bytes. It returns a mapping of outputs, likewise, or
an `Answer`, which ends the request. Each process of the steps worker calls it for one request at a time.
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
"""File of the code in the version folder of the step's model."""


class Answer:
    """What a step returns to end its request early: the graph's outputs, in place of what tasks would make of them.

    Args:
        outputs: Output of the graph -> array of one request, without a batch dimension; at least those that the client
            asked for.
    """

    def __init__(self, /, **outputs: Any) -> None:
        self.outputs = outputs


class StepError(Exception):
    """The user's code failed.

    Args:
        step: Its name.
        reason: What happened, with file and line of the code where that is known.
    """

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(plain(f"step {step}: {reason}"))


class Step:
    """A step's code, loaded.

    Args:
        folder: Version folder of the step's model.
        spec: Specification of the step.

    Raises:
        StepError: The code fails when it is loaded, or defines no function `step`.
    """

    def __init__(self, folder: Path, spec: StepSpec) -> None:
        self._name = spec.name
        self._file = spec.file
        self._outputs = {output.name: output for output in spec.outputs}
        self._answers = {answer.name: answer for answer in spec.answers}
        # Under the name that the user knows the file by, and with nothing cached in the folder that Triton looks at.
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
            inputs: Inputs by name, each with a leading dimension of 1, the request's.

        Returns:
            Every output declared, likewise, or the outputs of an early answer under the names that the gateway knows
            them by; and `ANSWERED_OUTPUT`, which tells the two apart.

        Raises:
            StepError: The code raised something, or its outputs are not those declared.
        """
        try:
            made = self._function(**{name: _locked(array[0]) for name, array in inputs.items()})
        except BaseException as error:  # that of a Rust library's panic, too: a request in error is to be answered
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
        """What the code made, as tensors with a leading dimension of 1.

        Args:
            made: By name.
            declared: What each is to be.
            wanted: Those that must be there.

        Raises:
            StepError: One is missing, was not declared, or is of another data type or shape.
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
        except Exception as error:  # whatever is in the way of what calls itself an array
            raise StepError(self._name, f"{self._file}: output {spec.name}: {error}") from error

    def _failed(self, error: BaseException) -> StepError:
        line = _line(error, self._file)
        at = f" ({self._file}:{line})" if line else f" ({self._file})"
        # A SyntaxError's own text tells the line once more.
        said = shortened(str(error.msg if isinstance(error, SyntaxError) else error))
        return StepError(self._name, f"{type(error).__name__}: {said}{at}")


def _flag(value: int) -> Array:
    return np.full((1, 1), value, np.uint8)


def _locked(array: Array) -> Array:
    """A view that cannot be written to: the array is other steps', too."""
    view = array.view()
    view.flags.writeable = False
    return view


def _line(error: BaseException, file: str) -> int | None:
    """The last line of the file on the way to the error."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno
    at: TracebackType | None = error.__traceback__
    lines = [number for frame, number in traceback.walk_tb(at) if frame.f_code.co_filename == file]
    return lines[-1] if lines else None
