"""The gateway's model that does a task by sending its batches to workers; one batch under way an instance.

`execute` is synchronous on purpose: while the instance waits for its worker, Triton's scheduler forms the next batch.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from jigsaw_triton.runtime.answers import response, tensors
from jigsaw_triton.runtime.batches import Batch
from jigsaw_triton.runtime.delivery import Delivery
from jigsaw_triton.runtime.route import Route
from jigsaw_triton.runtime.spec import RUN_DIR_VARIABLE, SPEC_PARAMETER, dispatcher_from_json


class TritonPythonModel:
    """A task's dispatcher, as the python backend wants it."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Reads the spec and the route.

        Raises:
            RuntimeError: The environment does not name the run directory.
        """
        if RUN_DIR_VARIABLE not in os.environ:
            raise RuntimeError(f"{RUN_DIR_VARIABLE} is not set; start the gateway with it")
        run_dir = Path(os.environ[RUN_DIR_VARIABLE])
        name = args["model_name"]
        log = pb_utils.Logger.log_warn
        self._spec = dispatcher_from_json(
            json.loads(args["model_config"])["parameters"][SPEC_PARAMETER]["string_value"]
        )
        route = Route(run_dir / "routes" / f"{name}.json", log)
        self._delivery = Delivery(self._spec, route, run_dir, log)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Sends a batch to workers and answers each request."""
        wanted = [request.requested_output_names() for request in requests]
        inputs = [tensors(request) for request in requests]
        batch = Batch(self._spec, inputs, {name for names in wanted for name in names})
        self._delivery.run(batch)
        return [response(result, names) for result, names in zip(batch.results(), wanted, strict=True)]

    def finalize(self) -> None:
        """Closes the connections: a worker with open ones is slow to stop."""
        self._delivery.close()
