"""Converts between results and the Python backend's tensors and responses."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import triton_python_backend_utils as pb_utils

from jigsaw_triton.runtime.dlpack import from_capsule, to_capsule
from jigsaw_triton.runtime.dtypes import BF16, Array
from jigsaw_triton.runtime.outcome import Blame, Failure

BLAMES: tuple[str, ...] = get_args(Blame)
"""Parties that can be to blame for a failure."""


def response(result: Mapping[str, Array] | Failure, names: Sequence[str]) -> Any:
    """Returns an InferenceResponse with outputs, or with an error whose code corresponds to the failure's blame.

    Args:
        result: Outputs by name, or a failure.
        names: Names of the outputs to include.
    """
    if not isinstance(result, Failure):
        return pb_utils.InferenceResponse([tensor_of(name, result[name]) for name in names])
    return pb_utils.InferenceResponse([], error=pb_utils.TritonError(result.message, code_of(result.blame)))


def code_of(blame: str) -> Any:
    """Returns Triton's error code for a blame."""
    # The stub fills its module only after it has imported the model, so these names do not exist at import.
    codes = {
        "request": pb_utils.TritonError.INVALID_ARG,
        "model": pb_utils.TritonError.INTERNAL,
        "worker": pb_utils.TritonError.UNAVAILABLE,
    }
    return codes[blame]


def late(waited_s: float, own_s: float) -> str:
    """Returns the message for a request that is refused because it has waited too long.

    Args:
        waited_s: Seconds that the request has waited.
        own_s: Timeout of the request in seconds; 0 if it has none.
    """
    promised = f"its timeout of {1000 * own_s:g} ms" if own_s else "the latency promised"
    return f"overloaded: the request waited for {1000 * waited_s:.0f} ms and cannot be answered within {promised}"


def tensors(request: Any) -> dict[str, Array]:
    """Returns a request's inputs by name, as views of Triton's memory."""
    return {tensor.name(): array_of(tensor) for tensor in request.inputs()}


def tensor_of(name: str, array: Array) -> Any:
    """Converts an array to a tensor of the Python backend."""
    if array.dtype == BF16:
        return pb_utils.Tensor.from_dlpack(name, to_capsule(array))
    return pb_utils.Tensor(name, array)


def array_of(tensor: Any) -> Array:
    """Returns the values of a tensor of the Python backend: a view of its memory, or a copy if numpy lacks the type."""
    try:
        array: Array = tensor.as_numpy()
    except pb_utils.TritonModelException:
        return from_capsule(tensor.to_dlpack())
    return array
