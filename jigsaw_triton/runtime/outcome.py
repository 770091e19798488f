"""Outcome of a request: its outputs, or a failure that says who is to blame."""

from dataclasses import dataclass
from typing import Literal

from jigsaw_triton.runtime.dtypes import Array, to_numpy
from jigsaw_triton.runtime.spec import TensorSpec

Blame = Literal["request", "model", "worker"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure of a request.

    Attributes:
        message: Text for the client.
        blame: Party that caused the failure. `request`: the request is invalid; `model`: a model failed on it;
            `worker`: no worker could execute it, so that a later retry may succeed.
    """

    message: str
    blame: Blame


def check_output(spec: TensorSpec, array: Array | None, items: int) -> None:
    """Checks one output of a model.

    Args:
        spec: Declaration for one item.
        array: Output with a leading batch dimension; None if the model did not return it.
        items: Number of items in the batch.

    Raises:
        ValueError: The output is missing, or has the wrong data type or shape.
    """
    if array is None:
        raise ValueError(f"output {spec.name} is missing")
    if array.dtype != to_numpy(spec.dtype):
        raise ValueError(f"output {spec.name} is of type {array.dtype} where {spec.dtype} was declared")
    expected = (items, *spec.shape)
    shape = array.shape
    if len(shape) != len(expected) or any(e not in (-1, s) for e, s in zip(expected, shape, strict=True)):
        raise ValueError(f"output {spec.name} has shape {list(shape)} where {list(expected)} was declared")
