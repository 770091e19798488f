"""A graph as a BLS model: calls the dispatchers and python steps in turn, many requests at once in each instance.

`execute` hands each request to a pool of threads and returns None; the answer goes out by its response sender. Those
beyond what an instance can have under way wait here, and are refused when they cannot be answered in time any more.
Triton's own statistics of this model end when `execute` returns; those of the ensemble in front of it are whole.
"""

import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Condition, Event, Thread, Timer
from typing import Any

import triton_python_backend_utils as pb_utils

from jigsaw_triton.runtime.admission import Admission, Turn
from jigsaw_triton.runtime.answers import BLAMES, array_of, code_of, late, tensor_of, tensors
from jigsaw_triton.runtime.calls import Calls
from jigsaw_triton.runtime.dtypes import Array
from jigsaw_triton.runtime.flow import Call, Early, Flow, FlowError, FlowPlan, Gathering, Outcome, plan_flow
from jigsaw_triton.runtime.metrics import PipelineCounts
from jigsaw_triton.runtime.spec import RUN_DIR_VARIABLE, SPEC_PARAMETER, PipelineStep, pipeline_from_json
from jigsaw_triton.runtime.steps import Answer, Step, StepError
from jigsaw_triton.runtime.trace import FOLDER, GATEWAY, Hop, Sampler, TraceFile

MOST_STEPS_AT_ONCE = 256
"""Threads, started as they are needed; each waits for one step. What comes beyond waits in the pool."""

LOOK_S = 1.0
"""Between two looks for code that hangs, and for requests that have waited too long while nothing came or ended."""

END_S = 5.0
"""After which the process of a model that is unloaded ends, whatever hangs in it."""

_BLAME = re.compile(rf"({'|'.join(BLAMES)}): ")


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    """A request that came.

    Attributes:
        plan: For the outputs that it wants.
        given: Its tensors.
        items: That go their own ways.
        request_id: The client's.
        timeout_us: Likewise; 0 for none.
        sender: Of its answer.
        traced: Whether it is written what becomes of it.
    """

    plan: FlowPlan
    given: Mapping[str, Array]
    items: int
    request_id: str
    timeout_us: int
    sender: Any
    traced: bool


class TritonPythonModel:
    """A graph's pipeline, as the python backend wants it."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Reads the spec, and loads the code of python steps.

        Raises:
            RuntimeError: The environment does not name the run directory.
            StepError: The code of a step cannot be loaded.
        """
        if RUN_DIR_VARIABLE not in os.environ:
            raise RuntimeError(f"{RUN_DIR_VARIABLE} is not set; start the gateway with it")
        parameters = json.loads(args["model_config"])["parameters"]
        self._spec = pipeline_from_json(parameters[SPEC_PARAMETER]["string_value"])
        folder = Path(args["model_repository"]) / args["model_version"]
        self._steps = {step.model: Step(folder, step) for step in self._spec.steps if step.code is not None}
        self._name = args["model_name"]
        self._sampler = Sampler(time.monotonic)
        run_dir = Path(os.environ[RUN_DIR_VARIABLE])
        self._traces = TraceFile(run_dir / FOLDER / GATEWAY / f"{args['model_instance_name']}.jsonl")
        self._answers = {answer.name: answer for answer in self._spec.answers}
        self._pool = ThreadPoolExecutor(MOST_STEPS_AT_ONCE, thread_name_prefix=self._spec.graph)
        self._plans: dict[tuple[str, ...], FlowPlan] = {}
        self._admission: Admission[_Request] = Admission(self._spec.slo_ms / 1000, time.monotonic)
        self._counts = PipelineCounts(self._spec.graph)
        self._counts.start()
        self._unanswered = 0
        self._started_s: dict[_Request, float] = {}
        self._changed = Condition()
        """Held around all that is counted."""
        self._limit_s = self._spec.call_timeout_ms / 1000
        self._calls: Calls[tuple[_Request, PipelineStep]] = Calls(self._limit_s, time.monotonic)
        self._closed = Event()
        Thread(target=self._watch, name="watch", daemon=True).start()

    def execute(self, requests: Sequence[Any]) -> None:
        """Takes in requests; they are answered later."""
        traced = self._sampler.choose([request.request_id() for request in requests]) if self._steps else {}
        for index, request in enumerate(requests):
            # The arrays are views of memory that is the request's only until this returns.
            inputs = {name: array.copy() for name, array in tensors(request).items()}
            given = {tensor: inputs[name] for name, tensor in self._spec.inputs.items() if name in inputs}
            taken = _Request(
                plan=self._plan(tuple(request.requested_output_names())),
                given=given,
                items=len(next(iter(given.values()))) if self._spec.split else 1,
                request_id=request.request_id(),
                timeout_us=request.timeout(),
                sender=request.get_response_sender(),
                traced=index in traced,
            )
            with self._changed:
                self._unanswered += 1
                turn = self._admission.came(taken, taken.items, taken.timeout_us / 1e6 or None)
            self._take(turn)

    def finalize(self) -> None:
        """Waits for what is under way, which may still need the pool; not for code that hangs."""
        with self._changed:
            self._changed.wait_for(lambda: self._unanswered == 0)
        self._closed.set()
        hanging = self._calls.hanging > 0
        self._pool.shutdown(wait=not hanging)
        self._counts.close()
        if hanging:
            # Python waits for its threads before the process ends, and Triton for the process.
            ending = Timer(END_S, os._exit, (0,))
            ending.daemon = True
            ending.start()

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_S):
            self._give_up()
            with self._changed:
                turn = self._admission.look()
            self._take(turn)

    def _give_up(self) -> None:
        """Answers the requests whose code hangs: each would keep a place here, and the model from being unloaded."""
        for request, step in self._calls.overdue():
            assert step.code is not None
            failure = f"step {step.model}: {step.code.file} has not returned within {self._limit_s:g} s"
            self._ran(request, step, self._limit_s, None, failure)
            self._end(request, FlowError(failure, pb_utils.TritonError.INTERNAL))

    def _take(self, turn: Turn[_Request]) -> None:
        for request in turn.start:
            with self._changed:
                self._started_s[request] = time.monotonic()
            self._start(request, partial(self._end, request))
        if turn.refuse:
            self._pool.submit(self._refuse, turn.refuse)

    def _refuse(self, requests: Sequence[tuple[_Request, float]]) -> None:
        for request, waited_s in requests:
            message = late(waited_s, request.timeout_us / 1e6)
            self._answer(request, FlowError(f"graph {self._spec.graph}: {message}", pb_utils.TritonError.UNAVAILABLE))
        self._counts.refused(sum(request.items for request, _ in requests))

    def _end(self, request: _Request, outcome: Outcome) -> None:
        with self._changed:
            began_s = self._started_s.pop(request, None)
            if began_s is None:  # the request was given up
                return
            took_s = time.monotonic() - began_s if not isinstance(outcome, FlowError) else None
            turn = self._admission.ended(request.items, took_s)
        self._take(turn)
        self._answer(request, outcome)

    def _answer(self, request: _Request, outcome: Outcome) -> None:
        try:
            _send(request.sender, outcome)
        finally:
            with self._changed:
                self._unanswered -= 1
                self._changed.notify_all()

    def _plan(self, wanted: tuple[str, ...]) -> FlowPlan:
        plan = self._plans.get(wanted)
        if plan is None:
            plan = self._plans[wanted] = plan_flow(self._spec, wanted)
        return plan

    def _start(self, request: _Request, done: Callable[[Outcome], None]) -> None:
        plan = request.plan
        call: Call = partial(self._call, request)
        if request.items == 1:
            self._pool.submit(Flow(plan, request.given, call, self._pool.submit, done).start)
            return
        gathering = Gathering(request.items, done)
        for index in range(request.items):
            item = {name: array[index : index + 1] for name, array in request.given.items()}
            flow = Flow(plan, item, call, self._pool.submit, partial(gathering.put, index))
            self._pool.submit(flow.start)

    def _call(self, request: _Request, step: PipelineStep, inputs: Mapping[str, Array]) -> dict[str, Array] | Early:
        """Runs a step and waits for it.

        Raises:
            FlowError: Whatever went wrong: a request whose step raised anything else would never be answered.
        """
        if step.code is None:
            return _call(request.request_id, request.timeout_us, step, inputs)
        began_s, failure = time.monotonic(), ""
        rows: dict[str, int] | None = None
        number = self._calls.begun((request, step))
        try:
            made = self._steps[step.model](inputs)
            if isinstance(made, Answer):
                early = Early(self._steps[step.model].tensors(made.outputs, self._answers, request.plan.outputs))
                rows = {}
                return early
            rows = {name: made[name].shape[1] for name in step.code.yields}
            return {name: made[name] for name in step.outputs}
        except Exception as error:
            told = error if isinstance(error, StepError) else StepError(step.model, f"{type(error).__name__}: {error}")
            failure = str(told)
            raise FlowError(failure, pb_utils.TritonError.INTERNAL) from error
        finally:
            if self._calls.ended(number):
                self._ran(request, step, time.monotonic() - began_s, rows, failure)

    def _ran(
        self, request: _Request, step: PipelineStep, took_s: float, rows: Mapping[str, int] | None, failure: str
    ) -> None:
        """Counts and traces a call of a step's code."""
        self._counts.ran(step.model, took_s, rows)
        if request.traced:
            self._traces.write(self._hop(request, step, took_s, failure))

    def _hop(self, request: _Request, step: PipelineStep, took_s: float, failure: str) -> Hop:
        """For the trace of a request: its stay in the code of a step."""
        assert step.code is not None
        return Hop(
            request=request.request_id,
            graph=self._spec.graph,
            task=step.model,
            dispatcher=self._name,
            taken_s=round(time.time() - took_s, 6),
            waited_ms=0.0,
            returned_ms=round(1000 * took_s, 3),
            requests=1,
            outcome="code" if failure else "answered",
            message=failure,
            calls=(),
            code=step.code.file,
        )


def _call(request_id: str, timeout_us: int, step: PipelineStep, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Runs a dispatcher through Triton's scheduler."""
    try:
        response = pb_utils.InferenceRequest(
            model_name=step.model,
            inputs=[tensor_of(name, array) for name, array in inputs.items()],
            requested_output_names=list(step.outputs),
            timeout=timeout_us,
            request_id=request_id,
        ).exec()
        if response.has_error():
            raise _failed(response.error())
        made = {tensor.name(): array_of(tensor) for tensor in response.output_tensors()}
        return {name: made[name] for name in step.outputs}
    except FlowError:
        raise
    except pb_utils.TritonModelException as error:
        raise FlowError(str(error), pb_utils.TritonError.UNAVAILABLE) from error
    except Exception as error:
        message = f"step {step.model}: {type(error).__name__}: {error}"
        raise FlowError(message, pb_utils.TritonError.INTERNAL) from error


def _failed(error: Any) -> FlowError:
    """A dispatcher's error: Triton 24.10 tells its message alone, and says INTERNAL of all."""
    message = error.message()
    blame = _BLAME.match(message)
    if blame is None:
        return FlowError(message, error.code())
    return FlowError(message[blame.end() :], code_of(blame[1]))


def _send(sender: Any, outcome: Outcome) -> None:
    if isinstance(outcome, FlowError):
        code = pb_utils.TritonError.INVALID_ARG if outcome.code is None else outcome.code
        response = pb_utils.InferenceResponse([], error=pb_utils.TritonError(outcome.message, code))
    else:
        response = pb_utils.InferenceResponse([tensor_of(name, array) for name, array in outcome.items()])
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
