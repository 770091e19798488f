"""What becomes of a request: its outputs, or a failure that says whose fault it is."""

from dataclasses import dataclass
from typing import Literal

from jigsaw_triton.runtime.dtypes import Array, to_numpy
from jigsaw_triton.runtime.spec import TensorSpec

Blame = Literal["request", "model", "worker"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request gets no outputs.

    Attributes:
        message: Text for the client.
        blame: `request`: its own fault; `model`: a model failed on it; `worker`: no worker could do it, later may help.
    """

    message: str
    blame: Blame


def check_output(spec: TensorSpec, array: Array | None, items: int) -> None:
    """Checks one output of a model.

    Args:
        spec: Declaration for one item.
        array: Output with a leading batch dimension; None where there is none.
        items: Number of items that were asked for.

    Raises:
        ValueError: The output is missing, or of another data type or shape; the message says which.
    """
    if array is None:
        raise ValueError(f"output {spec.name} is missing")
    if array.dtype != to_numpy(spec.dtype):
        raise ValueError(f"output {spec.name} is of type {array.dtype} where {spec.dtype} was declared")
    expected = (items, *spec.shape)
    shape = array.shape
    if len(shape) != len(expected) or any(e not in (-1, s) for e, s in zip(expected, shape, strict=True)):
        raise ValueError(f"output {spec.name} has shape {list(shape)} where {list(expected)} was declared")
