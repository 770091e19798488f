"""Serves compiled graphs in this process, with the real core of the compiled backend.

Fronts, queues, routes and calls are the backend's own, and Python steps and BLS pipelines run the code of a deployment.
Only Triton is replaced: `run_ensemble` executes ensembles as Triton does, and workers are threads that compute
`tests.fakes.arithmetic`.
"""

import json
from collections import deque
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
from tests.native.core import Engine, Failure, Front, Outcome, Request
from tests.native.worker import Call, Refuse
from tests.native.worker import Worker as Server
from tests.waiting import WAIT_LIMIT_S

Result = dict[str, Array] | Failure
Run = Callable[[str, Sequence[Arrays], Sequence[str]], list[Result]]
"""Function that runs a model for some requests, given its name, their inputs, and the requested outputs' names."""

THREADS = 16
"""Largest number of concurrent steps of BLS pipelines."""


class Machine:
    """Workers of a bundle, and an engine of the backend with routes to them.

    Args:
        bundle: Bundle with the workers.
        engine: Engine with an empty run directory.
        stack: Exit stack that stops the workers.
    """

    def __init__(self, bundle: Bundle, engine: Engine, stack: ExitStack) -> None:
        self.engine = engine
        self.pool = stack.enter_context(ThreadPoolExecutor(THREADS))
        for worker in bundle.workers.values():
            handler = partial(_work, _models(worker, engine.run_dir))
            stack.enter_context(Server(engine.run_dir, worker.name, handler))

    def serve(self, item: CompiledGraph) -> "Gateway":
        """Writes the routes of a compiled graph and returns a gateway for it."""
        for task in item.tasks:
            write_route(self.engine.run_dir, task.name, task.route)
        return Gateway(self, item)


@contextmanager
def machine(bundle: Bundle, run_dir: Path) -> Iterator[Machine]:
    """Provides workers and an engine, which are stopped at the end of the context."""
    with Engine(run_dir) as engine, ExitStack() as stack:
        yield Machine(bundle, engine, stack)


class Gateway:
    """A graph, compiled for one target, that answers requests.

    Args:
        machine: Machine with the workers and the engine.
        item: Compiled graph.
    """

    def __init__(self, machine: Machine, item: CompiledGraph) -> None:
        self._pool = machine.pool
        self._name = item.front.name
        self._configs = {folder.name: cfg.of_folder(folder) for folder in (item.front, *item.models)}
        self._started: deque[Future[None]] = deque()
        """Calls of BLS pipelines on other threads."""
        self._fronts: dict[str, tuple[Front, int]] = {}
        """Fronts by name, each with the SLO of its graph in nanoseconds."""
        for name, config in self._configs.items():
            if config.backend == "jigsaw":
                spec = json.loads(config.parameters[SPEC_PARAMETER].string_value)
                self._fronts[name] = machine.engine.front(spec, name), int(1e6 * spec["slo_ms"])

    @property
    def max_batch_size(self) -> int:
        """Largest number of items in a client's request."""
        return int(self._configs[self._name].max_batch_size)

    def infer(self, requests: Sequence[Arrays], wanted: Sequence[str]) -> list[Result]:
        """Returns the answers to concurrent requests, each with its batch dimension."""
        return self._run(self._name, requests, wanted)

    def close(self) -> None:
        """Waits for the steps that BLS pipelines still run, also those of failed requests, and closes the fronts."""
        while self._started:
            self._started.popleft().result(WAIT_LIMIT_S)
        for front, _ in self._fronts.values():
            front.close()

    def _run(self, model: str, requests: Sequence[Arrays], wanted: Sequence[str]) -> list[Result]:
        config = self._configs[model]
        assert all(len(array) <= config.max_batch_size for inputs in requests for array in inputs.values())
        if config.platform == "ensemble":
            return run_ensemble(config, requests, wanted, self._run)
        if config.backend == "python":
            spec = pipeline_from_json(config.parameters[SPEC_PARAMETER].string_value)
            return self._run_pipeline(spec, requests, wanted)
        return self._run_front(model, requests, wanted)

    def _run_front(self, name: str, requests: Sequence[Arrays], wanted: Sequence[str]) -> list[Result]:
        """Returns the answers of a front; a front of one task also returns the clock for the next one."""
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
        """Returns the answers of a BLS pipeline, which is started as `runtime.pipeline` does."""
        plan = flow.plan_flow(spec, wanted)
        futures: list[Future[flow.Outcome]] = []
        for inputs in requests:
            given = {tensor: inputs[name] for name, tensor in spec.inputs.items()}
            future: Future[flow.Outcome] = Future()
            futures.append(future)
            items = len(next(iter(given.values()))) if spec.split else 1
            gathering = flow.Gathering(items, future.set_result)
            for index in range(items):
                item = {name: array[index : index + 1] for name, array in given.items()} if items > 1 else given
                done = partial(gathering.put, index)
                self._spawn(flow.Flow(plan, item, self._call, self._spawn, done).start)
        outcomes = [future.result(WAIT_LIMIT_S) for future in futures]
        return [Failure("model", o.message) if isinstance(o, flow.FlowError) else o for o in outcomes]

    def _spawn(self, function: Callable[[], None]) -> None:
        self._started.append(self._pool.submit(function))

    def _call(self, step: PipelineStep, inputs: Mapping[str, Array]) -> dict[str, Array]:
        front, _ = self._fronts[step.model]
        result = _result(send(front, inputs, list(step.outputs), None).wait())
        if isinstance(result, Failure):
            raise flow.FlowError(result.message)
        return result


def send(front: Front, inputs: Mapping[str, Array], wanted: Sequence[str], clock: tuple[int, int] | None) -> Request:
    """Sends a request to a front; `clock` is its arrival and deadline, if they are known."""
    more: dict[str, Any] = {} if clock is None else {"arrival": clock[0], "deadline": clock[1]}
    return front.send(inputs, wanted=list(wanted), **more)


def _result(outcome: Outcome) -> Result:
    return dict(outcome.outputs) if outcome.failure is None else outcome.failure


Models = Mapping[str, tuple[WorkerModel, ModelConfig, Any]]
"""Models of a worker by name, each with its configuration and its runner or step; None for a chain."""


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
    """Answers a call to a worker, whose model may be a chain. Each model's outputs include the call's token."""

    def run(name: str, requests: Sequence[Arrays], outputs: Sequence[str]) -> list[Result]:
        model, config, runs = models[name]
        assert call.items <= model.batch
        if runs is None:
            return run_ensemble(config, requests, outputs, run)
        answers = [runs(inputs) for inputs in requests] if isinstance(runs, Step) else runs.answer(requests)
        results: list[Result] = []
        for result in answers:
            if isinstance(result, RunFailure):
                results.append(Failure(result.blame, result.message))
            else:
                tensors = {**result, TOKEN_OUTPUT: call.token()}
                results.append({output: tensors[output] for output in outputs if output in tensors})
        return results

    (result,) = run(call.model, [call.inputs], call.outputs)
    if isinstance(result, Failure):
        raise Refuse(400 if result.blame == "request" else 500, result.message)
    return result


def run_ensemble(config: ModelConfig, requests: Sequence[Arrays], wanted: Sequence[str], run: Run) -> list[Result]:
    """Runs an ensemble: each step runs once its inputs exist, except for steps that Triton skips.

    Args:
        config: Configuration of the ensemble.
        requests: Inputs of requests, which go through every step together.
        wanted: Names of the requested outputs.
        run: Function that runs a step's model.
    """
    skipped = _skipped(config, wanted)
    results: list[Result] = [dict(inputs) for inputs in requests]
    for step in _ordered(config):
        if step.model_name in skipped:
            continue
        outputs = step.output_map
        alive = [tensors for tensors in results if not isinstance(tensors, Failure)]
        given = [{name: tensors[tensor] for name, tensor in step.input_map.items()} for tensors in alive]
        answers = iter(run(step.model_name, given, list(outputs)) if given else [])
        for index, tensors in enumerate(results):
            if not isinstance(tensors, Failure):
                answer = next(answers)
                results[index] = (
                    answer
                    if isinstance(answer, Failure)
                    else {**tensors, **{tensor: answer[name] for name, tensor in outputs.items()}}
                )
    return [r if isinstance(r, Failure) else {name: r[name] for name in wanted} for r in results]


def _skipped(config: ModelConfig, wanted: Sequence[str]) -> set[str]:
    """Returns the models of steps that Triton 24.10 skips for these requested outputs, some of them by mistake.

    Triton counts down a step's outputs by those that are not requested, even if another step consumes them, and by
    those whose consumers are all skipped. It attributes a tensor that no step produces, an input, to the first step.
    """
    steps = list(config.ensemble_scheduling.step)
    producer = {tensor: index for index, step in enumerate(steps) for tensor in step.output_map.values()}
    consumers: dict[str, set[int]] = {}
    for index, step in enumerate(steps):
        for tensor in step.input_map.values():
            consumers.setdefault(tensor, set()).add(index)
    left = [len(step.output_map) for step in steps]
    ignored = {output.name for output in config.output} - set(wanted)
    while ignored:
        more = set()
        for tensor in ignored:
            index = producer.get(tensor, 0)
            left[index] -= 1
            for given in steps[index].input_map.values() if left[index] == 0 else ():
                consumers[given].discard(index)
                if not consumers[given]:
                    more.add(given)
        ignored = more
    return {step.model_name for step, count in zip(steps, left, strict=True) if count <= 0}


def _ordered(config: ModelConfig) -> list[Any]:
    """Returns the steps in topological order."""
    waiting, ready, ordered = list(config.ensemble_scheduling.step), {i.name for i in config.input}, []
    while waiting:
        step = next(step for step in waiting if ready.issuperset(step.input_map.values()))
        waiting.remove(step)
        ready.update(step.output_map.values())
        ordered.append(step)
    return ordered
