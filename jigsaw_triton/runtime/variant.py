"""A worker's model that runs a variant inside the python backend."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jigsaw_triton.runtime.answers import response, tensors
from jigsaw_triton.runtime.runners import load_runner
from jigsaw_triton.runtime.spec import RUN_DIR_VARIABLE, SPEC_PARAMETER, runner_from_json
from jigsaw_triton.runtime.trace import FOLDER, WORKERS, Run, TraceFile


class TritonPythonModel:
    """A variant, as the python backend wants it."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Loads the variant; where the environment names a run directory, batches that bring ids are traced there."""
        folder = Path(args["model_repository"])
        self._worker, self._model = folder.parent.name, args["model_name"]
        self._traces = None
        if run_dir := os.environ.get(RUN_DIR_VARIABLE):
            name = f"{args['model_instance_name']}.jsonl"
            self._traces = TraceFile(Path(run_dir) / FOLDER / WORKERS / self._worker / name)
        spec = runner_from_json(json.loads(args["model_config"])["parameters"][SPEC_PARAMETER]["string_value"])
        self._runner = load_runner(folder / args["model_version"], spec)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Runs a batch and answers each request."""
        began_s = time.time()
        inputs = [tensors(request) for request in requests]
        results = self._runner.answer(inputs)
        responses = [response(result, r.requested_output_names()) for result, r in zip(results, requests, strict=True)]
        if self._traces is not None and (ids := _ids(requests)):
            took_ms = round(1000 * (time.time() - began_s), 3)
            items = sum(len(next(iter(given.values()))) for given in inputs)
            self._traces.write(Run(ids, self._worker, self._model, round(began_s, 6), took_ms, items))
        return responses


def _ids(requests: Sequence[Any]) -> tuple[str, ...]:
    """Those that a batch's requests bring."""
    return tuple(told for request in requests if (told := request.request_id()))
