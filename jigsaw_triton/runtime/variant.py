"""A worker's model that runs a variant inside the python backend."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jigsaw_triton.runtime.answers import response, tensors
from jigsaw_triton.runtime.runners import load_runner
from jigsaw_triton.runtime.spec import SPEC_PARAMETER, runner_from_json


class TritonPythonModel:
    """A variant, as the python backend wants it."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Loads the variant."""
        spec = runner_from_json(json.loads(args["model_config"])["parameters"][SPEC_PARAMETER]["string_value"])
        self._runner = load_runner(Path(args["model_repository"]) / args["model_version"], spec)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Runs a batch and answers each request."""
        results = self._runner.answer([tensors(request) for request in requests])
        return [response(result, r.requested_output_names()) for result, r in zip(results, requests, strict=True)]
