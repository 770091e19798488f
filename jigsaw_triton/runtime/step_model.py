"""The model of a steps worker that runs a Python step inside the Python backend."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jigsaw_triton.runtime.answers import response, tensors
from jigsaw_triton.runtime.dtypes import Array
from jigsaw_triton.runtime.outcome import Failure
from jigsaw_triton.runtime.spec import SPEC_PARAMETER, TOKEN_OUTPUT, step_from_json
from jigsaw_triton.runtime.steps import Step, StepError
from jigsaw_triton.runtime.tokens import parse_call_id, token_of
from jigsaw_triton.runtime.variant import RunTraces


class TritonPythonModel:
    """A Python step, in the form that the Python backend requires."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Loads the code of the step.

        Raises:
            StepError: The code cannot be loaded.
        """
        folder = Path(args["model_repository"])
        spec = step_from_json(json.loads(args["model_config"])["parameters"][SPEC_PARAMETER]["string_value"])
        self._step = Step(folder / args["model_version"], spec)
        self._traces = RunTraces(folder.parent.name, args)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Runs the code for each request."""
        began_s = time.time()
        calls = [parse_call_id(request.request_id()) for request in requests]
        responses = []
        for call, request in zip(calls, requests, strict=True):
            made = self._made(tensors(request))
            if isinstance(made, Failure):
                responses.append(response(made, ()))
                continue
            made[TOKEN_OUTPUT] = token_of(call, 1)
            # A step that answers early has none of its own outputs, even if the request asks for them.
            responses.append(response(made, [name for name in request.requested_output_names() if name in made]))
        self._traces.write(calls, began_s, len(requests))
        return responses

    def _made(self, inputs: Mapping[str, Array]) -> dict[str, Array] | Failure:
        try:
            return self._step(inputs)
        except StepError as error:
            return Failure(str(error), "model")
