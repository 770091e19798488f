"""From results to the python backend's responses."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import triton_python_backend_utils as pb_utils

from jigsaw_triton.runtime.dlpack import from_capsule, to_capsule
from jigsaw_triton.runtime.dtypes import BF16, Array
from jigsaw_triton.runtime.outcome import Blame, Failure

BLAMES: tuple[str, ...] = get_args(Blame)
"""Causes that a failure can be blamed on."""


def response(result: Mapping[str, Array] | Failure, names: Sequence[str]) -> Any:
    """The InferenceResponse with the outputs of these names, or with the failure under a code that fits its blame.

    Args:
        result: Outputs by name, or a failure.
        names: Of the outputs that are wanted.
    """
    if not isinstance(result, Failure):
        return pb_utils.InferenceResponse([tensor_of(name, result[name]) for name in names])
    return pb_utils.InferenceResponse([], error=pb_utils.TritonError(result.message, code_of(result.blame)))


def code_of(blame: str) -> Any:
    """Triton's error code for a blame."""
    # The stub fills its module after it has imported the model: these names do not exist at import.
    codes = {
        "request": pb_utils.TritonError.INVALID_ARG,
        "model": pb_utils.TritonError.INTERNAL,
        "worker": pb_utils.TritonError.UNAVAILABLE,
    }
    return codes[blame]


def late(waited_s: float, own_s: float) -> str:
    """Why a request is refused that has waited too long.

    Args:
        waited_s: So far.
        own_s: The timeout that it brought; 0 for none.
    """
    promised = f"its timeout of {1000 * own_s:g} ms" if own_s else "the latency promised"
    return f"overloaded: the request waited for {1000 * waited_s:.0f} ms and cannot be answered within {promised}"


def tensors(request: Any) -> dict[str, Array]:
    """A request's inputs by name, as views of Triton's memory."""
    return {tensor.name(): array_of(tensor) for tensor in request.inputs()}


def tensor_of(name: str, array: Array) -> Any:
    """A tensor of Triton's."""
    if array.dtype == BF16:
        return pb_utils.Tensor.from_dlpack(name, to_capsule(array))
    return pb_utils.Tensor(name, array)


def array_of(tensor: Any) -> Array:
    """The values of a tensor of Triton's, as a view of its memory where numpy knows their type."""
    try:
        array: Array = tensor.as_numpy()
    except pb_utils.TritonModelException:
        return from_capsule(tensor.to_dlpack())
    return array
