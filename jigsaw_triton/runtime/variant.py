"""The model of a worker that runs a variant inside the Python backend."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jigsaw_triton.runtime.answers import response, tensors
from jigsaw_triton.runtime.outcome import Failure
from jigsaw_triton.runtime.runners import load_runner
from jigsaw_triton.runtime.spec import RUN_DIR_VARIABLE, SPEC_PARAMETER, TOKEN_OUTPUT, runner_from_json
from jigsaw_triton.runtime.tokens import CallId, parse_call_id, token_of
from jigsaw_triton.runtime.trace import FOLDER, WORKERS, Run, TraceFile


class TritonPythonModel:
    """A variant, in the form that the Python backend requires."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Loads the variant. If the environment names a run directory, batches with traced requests are recorded."""
        folder = Path(args["model_repository"])
        self._traces = RunTraces(folder.parent.name, args)
        spec = runner_from_json(json.loads(args["model_config"])["parameters"][SPEC_PARAMETER]["string_value"])
        instance = f"{folder.parent.name}/{args['model_instance_name']}"
        self._runner = load_runner(folder / args["model_version"], spec, instance)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Runs a batch and answers each request."""
        began_s = time.time()
        calls = [parse_call_id(request.request_id()) for request in requests]
        inputs = [tensors(request) for request in requests]
        results = self._runner.answer(inputs)
        for call, result in zip(calls, results, strict=True):
            if not isinstance(result, Failure):
                result[TOKEN_OUTPUT] = token_of(call, len(next(iter(result.values()))))
        responses = [response(result, r.requested_output_names()) for result, r in zip(results, requests, strict=True)]
        self._traces.write(calls, began_s, sum(len(next(iter(given.values()))) for given in inputs))
        return responses


class RunTraces:
    """Traces of the batches of one model instance on a worker.

    Args:
        worker: Name of the worker.
        args: Arguments that the Python backend passes to `initialize`.
    """

    def __init__(self, worker: str, args: Mapping[str, str]) -> None:
        self._worker, self._model = worker, args["model_name"]
        self._file = None
        if run_dir := os.environ.get(RUN_DIR_VARIABLE):
            name = f"{args['model_instance_name']}.jsonl"
            self._file = TraceFile(Path(run_dir) / FOLDER / WORKERS / worker / name)

    def write(self, calls: Sequence[CallId], began_s: float, items: int) -> None:
        """Writes a record of a batch if any of its calls contains traced requests.

        Args:
            calls: Calls that were joined in the batch.
            began_s: Start of the execution, in seconds since 1970.
            items: Number of items in the batch.
        """
        traced = [call for call in calls if call.ids]
        if self._file is None or not traced:
            return
        took_ms = round(1000 * (time.time() - began_s), 3)
        ids = tuple(name for call in traced for name in call.ids)
        tokens = tuple(call.token for call in traced)
        self._file.write(Run(ids, tokens, self._worker, self._model, round(began_s, 6), took_ms, items))
