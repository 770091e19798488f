"""From results to the python backend's responses."""

from collections.abc import Mapping, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from jigsaw_triton.runtime.batches import Failure
from jigsaw_triton.runtime.dtypes import Array


def response(result: Mapping[str, Array] | Failure, names: Sequence[str]) -> Any:
    """The InferenceResponse with the outputs of these names, or with the failure under a code that fits its blame."""
    if not isinstance(result, Failure):
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, result[name]) for name in names])
    # The stub fills its module after it has imported the model: these names do not exist at import.
    codes = {
        "request": pb_utils.TritonError.INVALID_ARG,
        "model": pb_utils.TritonError.INTERNAL,
        "worker": pb_utils.TritonError.UNAVAILABLE,
    }
    return pb_utils.InferenceResponse([], error=pb_utils.TritonError(result.message, codes[result.blame]))


def tensors(request: Any) -> dict[str, Array]:
    """A request's inputs by name, as views of Triton's memory."""
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
