"""docread written for a single tritonserver: a BLS model that calls detect, then recognise for its lines.

The Python backend of the baseline's server runs it.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """BLS model. Each instance handles one request at a time."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Reads the names of the models, and the batch size of recognise."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._detect, self._recognise = (parameters[name]["string_value"] for name in ("detect", "recognise"))
        self._batch = int(parameters["batch"]["string_value"])

    async def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Reads pages concurrently."""
        return list(await asyncio.gather(*(self._read(request) for request in requests)))

    async def _read(self, request: Any) -> Any:
        page = pb_utils.get_input_tensor_by_name(request, "IMAGE")
        boxes, crops = await _call(self._detect, [page], ["BOXES", "CROPS"])
        rows = crops.as_numpy()[0]
        parts = [pb_utils.Tensor("CROP", rows[at : at + self._batch]) for at in range(0, len(rows), self._batch)]
        read = await asyncio.gather(*(_call(self._recognise, [part], ["TEXT", "SCORE"]) for part in parts))
        text, score = (np.concatenate([tensor.as_numpy() for tensor in side])[None] for side in zip(*read, strict=True))
        return pb_utils.InferenceResponse([boxes, pb_utils.Tensor("TEXT", text), pb_utils.Tensor("SCORE", score)])


async def _call(model: str, inputs: list[Any], outputs: list[str]) -> list[Any]:
    request = pb_utils.InferenceRequest(model_name=model, requested_output_names=outputs, inputs=inputs)
    response = await request.async_exec()
    if response.has_error():
        raise pb_utils.TritonModelException(response.error().message())
    return [pb_utils.get_output_tensor_by_name(response, name) for name in outputs]
