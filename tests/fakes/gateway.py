"""A compiled graph run in this process: the gateway's part by the code that runs there, Triton's part by what is here.

Dispatchers' batches, runners, BLS pipelines and python steps are the real ones; queues, sockets and processes are left
out. An ensemble is walked as Triton walks it.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.bundle import Bundle, RouteEntry
from jigsaw_triton.compiler.store import write_model
from jigsaw_triton.runtime.batches import Batch, Failure
from jigsaw_triton.runtime.dtypes import Array, Arrays
from jigsaw_triton.runtime.runners.python import PythonRunner
from jigsaw_triton.runtime.spec import dispatcher_from_json, runner_from_json
from tests.fakes.arithmetic import Model
from tests.runtime import fake_pb_utils as pb

Result = dict[str, Array] | Failure
Call = Callable[[str, Sequence[Arrays], Sequence[str]], list[Result]]
"""Runs a model for some requests: its name, their inputs, the outputs wanted."""

PATIENCE_S = 60.0


class Gateway:
    """One graph of a bundle.

    Args:
        bundle: With it.
        name: Of the graph.
        pipeline: The class of `runtime.pipeline`, for graphs that are BLS.
        folder: To write the pipeline's model to.
    """

    def __init__(self, bundle: Bundle, name: str, pipeline: Callable[[], Any], folder: Path) -> None:
        self._item = bundle.graphs[name]
        self._front = cfg.of_folder(self._item.front)
        self._dispatchers = {d.name: d for d in self._item.dispatchers}
        self._models = {(worker.name, m.name): m for worker in bundle.workers.values() for m in worker.models}
        self._pipeline: Any = None
        if self._item.target == "bls":
            assert self._item.pipeline is not None
            path = write_model(self._item.pipeline, folder)
            self._pipeline = pipeline()
            spec = cfg.of_folder(self._item.pipeline).parameters["spec"].string_value
            config = json.dumps({"parameters": {"spec": {"string_value": spec}}})
            names = {"model_name": path.name, "model_instance_name": f"{path.name}_0_0"}
            self._pipeline.initialize(
                {**names, "model_repository": str(path), "model_version": "1", "model_config": config}
            )
            pb.InferenceRequest.models = {d: self._answer for d in self._dispatchers}

    @property
    def most(self) -> int:
        """Items in a client's request."""
        return int(self._front.max_batch_size)

    def ask(self, requests: Sequence[Arrays], wanted: Sequence[str]) -> list[Result]:
        """Requests that come at once, each with its batch dimension."""
        return walk(self._front, requests, wanted, self._call)

    def close(self) -> None:
        """Ends the pipeline."""
        if self._pipeline is not None:
            self._pipeline.finalize()
            pb.InferenceRequest.models = {}

    def _call(self, model: str, requests: Sequence[Arrays], wanted: Sequence[str]) -> list[Result]:
        if model in self._dispatchers:
            return self._dispatch(model, requests, wanted)
        if self._pipeline is None:
            assert self._item.pipeline is not None
            return walk(cfg.of_folder(self._item.pipeline), requests, wanted, self._call)
        asked = [pb.Request(dict(inputs), tuple(wanted)) for inputs in requests]
        self._pipeline.execute(asked)
        assert all(request.sender.event.wait(PATIENCE_S) for request in asked)
        return [_result(response) for request in asked for response in request.sender.sent]

    def _answer(self, request: pb.InferenceRequest) -> pb.InferenceResponse:
        """A pipeline's call of a dispatcher."""
        (result,) = self._dispatch(request.model_name, [request.arrays], request.outputs)
        if isinstance(result, Failure):
            return pb.InferenceResponse([], error=pb.TritonError(f"{result.blame}: {result.message}"))
        return pb.InferenceResponse([pb.Tensor(name, result[name]) for name in request.outputs])

    def _dispatch(self, name: str, requests: Sequence[Arrays], wanted: Sequence[str]) -> list[Result]:
        """One batch of all requests, its parts by the route's entries in turn."""
        dispatcher = self._dispatchers[name]
        spec = dispatcher_from_json(cfg.of_folder(dispatcher.folder).parameters["spec"].string_value)
        batch = Batch(spec, requests, wanted)
        turn = 0
        while batch.head() is not None:
            entry = dispatcher.route[turn % len(dispatcher.route)]
            turn += 1
            part = batch.take(1 if spec.one_by_one else entry.batch)
            result = self._work(entry, part.inputs(), batch.output_names)
            if isinstance(result, Failure):
                batch.refused(part, result)
            else:
                batch.answered(part, result)
        return list(batch.results())

    def _work(self, entry: RouteEntry, inputs: Arrays, wanted: Sequence[str]) -> Result:
        """A worker's answer, its chains included."""

        def run(model: str, requests: Sequence[Arrays], outputs: Sequence[str]) -> list[Result]:
            config = cfg.of_folder(self._models[entry.worker, model].folder)
            if config.platform == "ensemble":
                return walk(config, requests, outputs, run)
            spec = runner_from_json(config.parameters["spec"].string_value)
            results = PythonRunner(spec, Model(None, spec.parameters, spec.threads)).answer(requests)
            return [r if isinstance(r, Failure) else {name: r[name] for name in outputs} for r in results]

        (result,) = run(entry.model, [inputs], wanted)
        return result


def walk(config: ModelConfig, requests: Sequence[Arrays], wanted: Sequence[str], call: Call) -> list[Result]:
    """An ensemble: steps run once their inputs are there, all but those that Triton leaves out.

    Args:
        config: Its configuration.
        requests: Inputs of each; they go through every step together.
        wanted: Outputs.
        call: Runs a step's model.
    """
    assert all(len(array) <= config.max_batch_size for inputs in requests for array in inputs.values())
    left_out = _left_out(config, wanted)
    results: list[Result] = [dict(inputs) for inputs in requests]
    for step in _ordered(config):
        if step.model_name in left_out:
            continue
        outputs = step.output_map
        alive = [tensors for tensors in results if not isinstance(tensors, Failure)]
        given = [{name: tensors[tensor] for name, tensor in step.input_map.items()} for tensors in alive]
        made = iter(call(step.model_name, given, list(outputs)) if given else [])
        for index, tensors in enumerate(results):
            if not isinstance(tensors, Failure):
                got = next(made)
                results[index] = (
                    got
                    if isinstance(got, Failure)
                    else {**tensors, **{tensor: got[name] for name, tensor in outputs.items()}}
                )
    return [r if isinstance(r, Failure) else {name: r[name] for name in wanted} for r in results]


def _left_out(config: ModelConfig, wanted: Sequence[str]) -> set[str]:
    """Models of steps that Triton 24.10 does not run when these outputs are wanted, some of them by mistake.

    It counts down a step's outputs by those that are not wanted, whether or not a step takes them, and by those whose
    steps are left out; and one that no step makes, an input, it takes for the first step's.
    """
    steps = list(config.ensemble_scheduling.step)
    maker = {tensor: index for index, step in enumerate(steps) for tensor in step.output_map.values()}
    users: dict[str, set[int]] = {}
    for index, step in enumerate(steps):
        for tensor in step.input_map.values():
            users.setdefault(tensor, set()).add(index)
    left = [len(step.output_map) for step in steps]
    ignored = {output.name for output in config.output} - set(wanted)
    while ignored:
        more = set()
        for tensor in ignored:
            index = maker.get(tensor, 0)
            left[index] -= 1
            for given in steps[index].input_map.values() if left[index] == 0 else ():
                users[given].discard(index)
                if not users[given]:
                    more.add(given)
        ignored = more
    return {step.model_name for step, count in zip(steps, left, strict=True) if count <= 0}


def _ordered(config: ModelConfig) -> list[Any]:
    """The steps, each after those that make what it takes."""
    waiting, ready, ordered = list(config.ensemble_scheduling.step), {i.name for i in config.input}, []
    while waiting:
        step = next(step for step in waiting if ready.issuperset(step.input_map.values()))
        waiting.remove(step)
        ready.update(step.output_map.values())
        ordered.append(step)
    return ordered


def _result(response: pb.InferenceResponse) -> Result:
    error = response.error()
    if error is not None:
        return Failure(error.message(), "model")
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
