"""A graph as a BLS model: calls the dispatchers and python steps in turn, many requests at once in one instance.

`execute` hands each request to a pool of threads and returns None; the answer goes out by its response sender.
Triton's own statistics of this model end when `execute` returns; those of the ensemble in front of it are whole.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Condition
from typing import Any

import triton_python_backend_utils as pb_utils

from jigsaw_triton.runtime.answers import tensors
from jigsaw_triton.runtime.dtypes import Array
from jigsaw_triton.runtime.flow import Call, Early, Flow, FlowError, FlowPlan, Gathering, Outcome, plan_flow
from jigsaw_triton.runtime.spec import SPEC_PARAMETER, PipelineStep, pipeline_from_json
from jigsaw_triton.runtime.steps import Answer, Step, StepError

MOST_STEPS_AT_ONCE = 256
"""Threads, started as they are needed; each waits for one step. What comes beyond waits in the pool."""


class TritonPythonModel:
    """A graph's pipeline, as the python backend wants it."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Reads the spec, and loads the code of python steps.

        Raises:
            StepError: The code of one cannot be loaded.
        """
        parameters = json.loads(args["model_config"])["parameters"]
        self._spec = pipeline_from_json(parameters[SPEC_PARAMETER]["string_value"])
        folder = Path(args["model_repository"]) / args["model_version"]
        self._steps = {step.model: Step(folder, step) for step in self._spec.steps if step.code is not None}
        self._answers = {answer.name: answer for answer in self._spec.answers}
        self._pool = ThreadPoolExecutor(MOST_STEPS_AT_ONCE, thread_name_prefix=self._spec.graph)
        self._plans: dict[tuple[str, ...], FlowPlan] = {}
        self._under_way = 0
        self._ended = Condition()

    def execute(self, requests: Sequence[Any]) -> None:
        """Takes in requests; they are answered later."""
        for request in requests:
            # The arrays are views of memory that is the request's only until this returns.
            inputs = {name: array.copy() for name, array in tensors(request).items()}
            given = {tensor: inputs[name] for name, tensor in self._spec.inputs.items() if name in inputs}
            plan = self._plan(tuple(request.requested_output_names()))
            call = partial(self._call, plan, request.request_id(), request.timeout())
            with self._ended:
                self._under_way += 1
            self._start(plan, given, call, partial(self._end, request.get_response_sender()))

    def finalize(self) -> None:
        """Waits for what is under way, which may still need the pool."""
        with self._ended:
            self._ended.wait_for(lambda: self._under_way == 0)
        self._pool.shutdown(wait=True)

    def _end(self, sender: Any, outcome: Outcome) -> None:
        try:
            _send(sender, outcome)
        finally:
            with self._ended:
                self._under_way -= 1
                self._ended.notify_all()

    def _plan(self, wanted: tuple[str, ...]) -> FlowPlan:
        plan = self._plans.get(wanted)
        if plan is None:
            plan = self._plans[wanted] = plan_flow(self._spec, wanted)
        return plan

    def _start(
        self,
        plan: FlowPlan,
        given: Mapping[str, Array],
        call: Call,
        done: Callable[[Outcome], None],
    ) -> None:
        count = len(next(iter(given.values()))) if self._spec.split else 1
        if count == 1:
            self._pool.submit(Flow(plan, given, call, self._pool.submit, done).start)
            return
        gathering = Gathering(count, done)
        for index in range(count):
            item = {name: array[index : index + 1] for name, array in given.items()}
            flow = Flow(plan, item, call, self._pool.submit, partial(gathering.put, index))
            self._pool.submit(flow.start)

    def _call(
        self, plan: FlowPlan, request_id: str, timeout_us: int, step: PipelineStep, inputs: Mapping[str, Array]
    ) -> dict[str, Array] | Early:
        """Runs a step and waits for it.

        Raises:
            FlowError: Whatever went wrong: a request whose step raised anything else would never be answered.
        """
        if step.code is None:
            return _call(request_id, timeout_us, step, inputs)
        try:
            code = self._steps[step.model]
            made = code(inputs)
            if not isinstance(made, Answer):
                return {name: made[name] for name in step.outputs}
            return Early(code.tensors(made.outputs, [self._answers[name] for name in plan.outputs]))
        except Exception as error:
            message = (
                str(error) if isinstance(error, StepError) else f"step {step.model}: {type(error).__name__}: {error}"
            )
            raise FlowError(message, pb_utils.TritonError.INTERNAL) from error


def _call(request_id: str, timeout_us: int, step: PipelineStep, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Runs a dispatcher through Triton's scheduler."""
    try:
        response = pb_utils.InferenceRequest(
            model_name=step.model,
            inputs=[pb_utils.Tensor(name, array) for name, array in inputs.items()],
            requested_output_names=list(step.outputs),
            timeout=timeout_us,
            request_id=request_id,
        ).exec()
        if response.has_error():
            raise FlowError(response.error().message(), response.error().code())
        made = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        return {name: made[name] for name in step.outputs}
    except FlowError:
        raise
    except pb_utils.TritonModelException as error:
        raise FlowError(str(error), pb_utils.TritonError.UNAVAILABLE) from error
    except Exception as error:
        message = f"step {step.model}: {type(error).__name__}: {error}"
        raise FlowError(message, pb_utils.TritonError.INTERNAL) from error


def _send(sender: Any, outcome: Outcome) -> None:
    if isinstance(outcome, FlowError):
        code = pb_utils.TritonError.INVALID_ARG if outcome.code is None else outcome.code
        response = pb_utils.InferenceResponse([], error=pb_utils.TritonError(outcome.message, code))
    else:
        response = pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outcome.items()])
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
