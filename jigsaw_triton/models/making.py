"""Jobs of the process that converts models: to make a variant of an ONNX model, and to compare it with the model."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.models.agreement import Agreement, Metric, UnsuitableMetricError, agreement
from jigsaw_triton.models.onnx_file import read_onnx
from jigsaw_triton.models.onnx_session import load_onnx
from jigsaw_triton.models.trial import Run, error_words
from jigsaw_triton.runtime.dtypes import Arrays
from jigsaw_triton.runtime.outcome import check_output
from jigsaw_triton.runtime.spec import RunnerSpec


@dataclass(frozen=True, slots=True)
class Conversion:
    """A variant to make.

    Attributes:
        source: ONNX file.
        target: File to write.
        kind: `int8`, `fp16`, `batch` or `resize`.
        scale: Size of the images for `resize`, relative to their size before.
    """

    source: Path
    target: Path
    kind: str
    scale: float = 1.0

    def perform(self) -> str:
        """Makes the variant; returns the reason why that is impossible, or nothing. Exceptions are reasons."""
        try:
            import onnx

            from jigsaw_triton.models.conversion import CONVERSIONS, UnsuitableError, resized

            model = onnx.load(self.source)
            try:
                made = resized(model, self.scale) if self.kind == "resize" else CONVERSIONS[self.kind](model)
            except UnsuitableError as error:
                return str(error)
            # Weights that were in a file of their own are now in the model.
            onnx.save(made, self.target)
        except BaseException as error:
            return error_words(error)
        return ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison of a variant with its original.

    Attributes:
        original: ONNX file of the original.
        variant: ONNX file of the variant.
        spec: Specification of the original.
        items: Inputs, with a leading dimension that counts the items.
        together: Number of items that the variant runs in one batch. The original runs one item at a time.
        metric: Metric; None for the one that suits the outputs.
    """

    original: Path
    variant: Path
    spec: RunnerSpec
    items: Arrays
    together: int = 1
    metric: Metric | None = None

    def perform(self) -> Agreement | str:
        """Runs both models on all items; returns their agreement, or the message of a failure."""
        try:
            original = _filled(load_onnx(self.original, self.spec), self.original)
        except BaseException as error:
            return f"the original cannot be loaded: {error_words(error)}"
        try:
            variant = _filled(load_onnx(self.variant, self.spec), self.variant)
        except BaseException as error:
            return f"it cannot be loaded: {error_words(error)}"
        try:
            return agreement(self._pairs(original, variant), self.metric)
        except UnsuitableMetricError as error:
            return f"{error}; use --metric error"
        except _OriginalError as error:
            return f"the original fails on an item: {error}"
        except BaseException as error:
            return f"it fails on an item: {error_words(error)}"

    def _pairs(self, original: Run, variant: Run) -> Iterator[tuple[Arrays, Arrays]]:
        """Yields the outputs of both models for each item."""
        count = len(next(iter(self.items.values())))
        for start in range(0, count, self.together):
            made = variant({name: array[start : start + self.together] for name, array in self.items.items()})
            stop = min(start + self.together, count)
            for tensor in self.spec.outputs:
                check_output(tensor, made[tensor.name], stop - start)
            for index in range(start, stop):
                try:
                    wanted = original({name: array[index : index + 1] for name, array in self.items.items()})
                except BaseException as error:
                    raise _OriginalError(error_words(error)) from error
                at = index - start
                yield wanted, {name: array[at : at + 1] for name, array in made.items()}


def _filled(run: Run, file: Path) -> Run:
    """Returns a function that fills the batches of a model up to the only size that it takes, if that is above 1."""
    interface = read_onnx(file)
    sizes = {t.shape[0] for name, t in interface.inputs.items() if t.shape and name not in interface.optional}
    size = max(sizes, default=1)
    if len(sizes) != 1 or size <= 1:
        return run

    def filled(inputs: Arrays) -> Arrays:
        count = len(next(iter(inputs.values())))
        rows = [*range(count), *(count - 1 for _ in range(size - count))]
        return {name: array[:count] for name, array in run({n: a[rows] for n, a in inputs.items()}).items()}

    return filled


class _OriginalError(Exception):
    """The original fails."""
