"""A compiled graph served in this process, over the real core of the compiled backend.

Fronts, queues, routes and calls are the backend's own; python steps and BLS pipelines run by the code of a deployment.
What stands in is Triton: an ensemble is walked as Triton walks it, and workers are threads that compute
`tests.fakes.arithmetic`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc.model_config_pb2 import ModelConfig

from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.bundle import Bundle, CompiledGraph, Worker, WorkerModel
from jigsaw_triton.compiler.store import write_model, write_route
from jigsaw_triton.runtime import flow
from jigsaw_triton.runtime.dtypes import Array, Arrays
from jigsaw_triton.runtime.outcome import Failure as RunFailure
from jigsaw_triton.runtime.runners.python import PythonRunner
from jigsaw_triton.runtime.spec import (
    CLOCK_TENSOR,
    SPEC_PARAMETER,
    TOKEN_OUTPUT,
    PipelineSpec,
    PipelineStep,
    pipeline_from_json,
    runner_from_json,
    step_from_json,
)
from jigsaw_triton.runtime.steps import Step
from tests.compiler.samples import spec_text
from tests.fakes.arithmetic import Model
from tests.native.core import PATIENCE_S, Engine, Failure, Front, Outcome, Request
from tests.native.worker import Call, Refuse
from tests.native.worker import Worker as Server

Result = dict[str, Array] | Failure
Run = Callable[[str, Sequence[Arrays], Sequence[str]], list[Result]]
"""Runs a model for some requests: its name, their inputs, the outputs wanted."""

THREADS = 16
"""Most steps of BLS pipelines at a time."""


class Machine:
    """Workers of a bundle, and an engine of the backend that knows their routes.

    Args:
        bundle: Bundle that has the workers.
        engine: Engine with an empty run directory.
        stack: Ends the workers.
    """

    def __init__(self, bundle: Bundle, engine: Engine, stack: ExitStack) -> None:
        self.engine = engine
        self.pool = stack.enter_context(ThreadPoolExecutor(THREADS))
        for worker in bundle.workers.values():
            handler = partial(_work, _models(worker, engine.run_dir))
            stack.enter_context(Server(engine.run_dir, worker.name, handler))

    def serve(self, item: CompiledGraph) -> "Gateway":
        """A graph of the bundle."""
        for task in item.tasks:
            write_route(self.engine.run_dir, task.name, task.route)
        return Gateway(self, item)


@contextmanager
def machine(bundle: Bundle, run_dir: Path) -> Iterator[Machine]:
    """Workers and an engine that end with the `with` block."""
    with Engine(run_dir) as engine, ExitStack() as stack:
        yield Machine(bundle, engine, stack)


class Gateway:
    """One form of a graph.

    Args:
        machine: Machine that it runs on.
        item: Form of the graph.
    """

    def __init__(self, machine: Machine, item: CompiledGraph) -> None:
        self._pool = machine.pool
        self._name = item.front.name
        self._configs = {folder.name: cfg.of_folder(folder) for folder in (item.front, *item.models)}
        self._fronts: dict[str, tuple[Front, int]] = {}
        """Front, and the SLO of its graph in nanoseconds, by name."""
        for name, config in self._configs.items():
            if config.backend == "jigsaw":
                spec = json.loads(config.parameters[SPEC_PARAMETER].string_value)
                self._fronts[name] = machine.engine.front(spec, name), int(1e6 * spec["slo_ms"])

    @property
    def most(self) -> int:
        """Items in a client's request."""
        return int(self._configs[self._name].max_batch_size)

    def ask(self, requests: Sequence[Arrays], wanted: Sequence[str]) -> list[Result]:
        """Answers to requests that come at once, each with its batch dimension."""
        return self._run(self._name, requests, wanted)

    def close(self) -> None:
        """Ends the fronts."""
        for front, _ in self._fronts.values():
            front.close()

    def _run(self, model: str, requests: Sequence[Arrays], wanted: Sequence[str]) -> list[Result]:
        config = self._configs[model]
        assert all(len(array) <= config.max_batch_size for inputs in requests for array in inputs.values())
        if config.platform == "ensemble":
            return walk(config, requests, wanted, self._run)
        if config.backend == "python":
            spec = pipeline_from_json(config.parameters[SPEC_PARAMETER].string_value)
            return self._run_pipeline(spec, requests, wanted)
        return self._run_front(model, requests, wanted)

    def _run_front(self, name: str, requests: Sequence[Arrays], wanted: Sequence[str]) -> list[Result]:
        """Answers of a front; of one task with the clock that it hands on."""
        front, slo_ns = self._fronts[name]
        outputs = [name for name in wanted if name != CLOCK_TENSOR]
        sent: list[tuple[Request, tuple[int, int] | None]] = []
        for inputs in requests:
            given, clock = dict(inputs), None
            if (tensor := given.pop(CLOCK_TENSOR, None)) is not None:
                (clock,) = {(int(arrival), int(deadline)) for arrival, deadline in tensor}
            sent.append((send(front, given, outputs, clock), clock))
        results: list[Result] = []
        for request, clock in sent:
            outcome = request.wait()
            assert clock is None or outcome.arrival_ns == clock[0]
            result = _result(outcome)
            if CLOCK_TENSOR in wanted and not isinstance(result, Failure):
                clock = clock or (outcome.arrival_ns, outcome.arrival_ns + slo_ns)
                result[CLOCK_TENSOR] = np.tile(np.array([clock], np.int64), (outcome.items, 1))
            results.append(result)
        return results

    def _run_pipeline(self, spec: PipelineSpec, requests: Sequence[Arrays], wanted: Sequence[str]) -> list[Result]:
        """Answers of a BLS pipeline, which begins them as `runtime.pipeline` does."""
        plan = flow.plan_flow(spec, wanted)
        made: list[Future[flow.Outcome]] = []
        for inputs in requests:
            given = {tensor: inputs[name] for name, tensor in spec.inputs.items()}
            future: Future[flow.Outcome] = Future()
            made.append(future)
            items = len(next(iter(given.values()))) if spec.split else 1
            gathering = flow.Gathering(items, future.set_result)
            for index in range(items):
                item = {name: array[index : index + 1] for name, array in given.items()} if items > 1 else given
                done = partial(gathering.put, index)
                self._pool.submit(flow.Flow(plan, item, self._call, self._pool.submit, done).start)
        outcomes = [future.result(PATIENCE_S) for future in made]
        return [Failure("model", o.message) if isinstance(o, flow.FlowError) else o for o in outcomes]

    def _call(self, step: PipelineStep, inputs: Mapping[str, Array]) -> dict[str, Array]:
        front, _ = self._fronts[step.model]
        result = _result(send(front, inputs, list(step.outputs), None).wait())
        if isinstance(result, Failure):
            raise flow.FlowError(result.message)
        return result


def send(front: Front, inputs: Mapping[str, Array], wanted: Sequence[str], clock: tuple[int, int] | None) -> Request:
    """Sends a request to a front, with its arrival and deadline where they are known."""
    more: dict[str, Any] = {} if clock is None else {"arrival": clock[0], "deadline": clock[1]}
    return front.send(inputs, wanted=list(wanted), **more)


def _result(outcome: Outcome) -> Result:
    return dict(outcome.outputs) if outcome.failure is None else outcome.failure


Models = Mapping[str, tuple[WorkerModel, ModelConfig, Any]]
"""Name -> model of a worker, its configuration, and what runs it: a runner, a step, or None for a chain."""


def _models(worker: Worker, run_dir: Path) -> Models:
    found: dict[str, tuple[WorkerModel, ModelConfig, Any]] = {}
    for model in worker.models:
        config = cfg.of_folder(model.folder)
        runs: PythonRunner | Step | None = None
        if worker.place is None:
            path = write_model(model.folder, run_dir / "repositories" / worker.name)
            runs = Step(path / cfg.VERSION, step_from_json(spec_text(model.folder)))
        elif not model.members:
            spec = runner_from_json(config.parameters[SPEC_PARAMETER].string_value)
            runs = PythonRunner(spec, Model(None, spec.parameters, spec.threads))
        found[model.name] = model, config, runs
    return found


def _work(models: Models, call: Call) -> dict[str, Array]:
    """A worker's answer to a call, its chains included; each model gives the call's token."""

    def run(name: str, requests: Sequence[Arrays], outputs: Sequence[str]) -> list[Result]:
        model, config, runs = models[name]
        assert call.items <= model.batch
        if runs is None:
            return walk(config, requests, outputs, run)
        made = [runs(inputs) for inputs in requests] if isinstance(runs, Step) else runs.answer(requests)
        results: list[Result] = []
        for result in made:
            if isinstance(result, RunFailure):
                results.append(Failure(result.blame, result.message))
            else:
                whole = {**result, TOKEN_OUTPUT: call.token()}
                results.append({output: whole[output] for output in outputs if output in whole})
        return results

    (result,) = run(call.model, [call.inputs], call.outputs)
    if isinstance(result, Failure):
        raise Refuse(400 if result.blame == "request" else 500, result.message)
    return result


def walk(config: ModelConfig, requests: Sequence[Arrays], wanted: Sequence[str], run: Run) -> list[Result]:
    """An ensemble: steps run once their inputs are there, all but those that Triton leaves out.

    Args:
        config: Configuration of the ensemble.
        requests: Inputs of each; they go through every step together.
        wanted: Outputs.
        run: Runs a step's model.
    """
    left_out = _left_out(config, wanted)
    results: list[Result] = [dict(inputs) for inputs in requests]
    for step in _ordered(config):
        if step.model_name in left_out:
            continue
        outputs = step.output_map
        alive = [tensors for tensors in results if not isinstance(tensors, Failure)]
        given = [{name: tensors[tensor] for name, tensor in step.input_map.items()} for tensors in alive]
        made = iter(run(step.model_name, given, list(outputs)) if given else [])
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
