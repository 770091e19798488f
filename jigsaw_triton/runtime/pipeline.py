"""The BLS model of a graph, which calls the one-task fronts in order, for many requests at once in each instance.

`execute` passes each request to a pool of threads and returns None; the response sender of the request sends its
answer. Requests that exceed an instance's capacity wait here, and are refused once they can no longer be answered in
time. Triton's own statistics of this model end when `execute` returns; those of the ensemble in front of it cover the
whole request.
"""

import json
import math
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from jigsaw_triton.runtime.admission import Admission, Turn
from jigsaw_triton.runtime.answers import BLAMES, array_of, code_of, late, tensor_of, tensors
from jigsaw_triton.runtime.dtypes import Array
from jigsaw_triton.runtime.flow import Call, Flow, FlowError, FlowPlan, Gathering, Outcome, plan_flow
from jigsaw_triton.runtime.spec import CLOCK_TENSOR, SPEC_PARAMETER, PipelineStep, pipeline_from_json

MAX_THREADS = 256
"""Largest number of threads, which are started on demand; each waits for one step. Further steps wait in the pool."""

TRACE_HEADERS = ("traceparent", "tracestate")
"""Headers with the context of the client's trace, which Triton passes on as parameters."""

POLL_S = 1.0
"""Seconds between two checks for requests that have waited too long."""

_BLAME = re.compile(rf"({'|'.join(BLAMES)}): ")


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    """A request that has not been answered yet.

    Attributes:
        plan: Plan for the requested outputs.
        given: Inputs of the request, by tensor name.
        items: Number of items that run through the steps separately.
        request_id: Id that the client gave.
        timeout_us: Timeout that the client gave, in microseconds; 0 for none.
        parameters: Parameters that the fronts get too: the context of the client's trace.
        clock: Arrival and deadline in nanoseconds of the monotonic clock.
        sender: Response sender of the request.
    """

    plan: FlowPlan
    given: Mapping[str, Array]
    items: int
    request_id: str
    timeout_us: int
    parameters: Mapping[str, str]
    clock: tuple[int, int]
    sender: Any


class TritonPythonModel:
    """The pipeline of a graph, in the form that the Python backend requires."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Reads the specification, and starts a thread that refuses requests that have waited too long."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._spec = pipeline_from_json(parameters[SPEC_PARAMETER]["string_value"])
        self._pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix=self._spec.graph)
        self._plans: dict[tuple[str, ...], FlowPlan] = {}
        limit_s = math.inf if self._spec.overload == "queue" else self._spec.slo_ms / 1000
        self._admission: Admission[_Request] = Admission(limit_s, time.monotonic)
        labels = {"graph": self._spec.graph, "task": "", "reason": "late"}
        family = pb_utils.MetricFamily(
            name="jigsaw_refused_total",
            description="Requests that failed at a task, by reason",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        self._refused = family.Metric(labels=labels)
        self._refused_lock = threading.Lock()
        self._unanswered = 0
        self._started_s: dict[_Request, float] = {}
        self._changed = threading.Condition()
        """Lock of the admission and of all counters; notified when a request has been answered."""
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def execute(self, requests: Sequence[Any]) -> None:
        """Accepts requests, which are answered later."""
        now_ns = time.monotonic_ns()
        for request in requests:
            # The arrays are views of memory that belongs to the request only until this method returns.
            inputs = {name: array.copy() for name, array in tensors(request).items()}
            given = {tensor: inputs[name] for name, tensor in self._spec.inputs.items() if name in inputs}
            timeout_us = request.timeout()
            # The clock is an INT64, which a long timeout could overflow.
            limit_ns = min(1000 * timeout_us or int(1e6 * self._spec.slo_ms), 2**63 - 1 - now_ns)
            taken = _Request(
                plan=self._plan(tuple(request.requested_output_names())),
                given=given,
                items=len(next(iter(given.values()))) if self._spec.split else 1,
                request_id=request.request_id(),
                timeout_us=timeout_us,
                parameters=_trace_context(request.parameters()),
                clock=(now_ns, now_ns + limit_ns),
                sender=request.get_response_sender(),
            )
            with self._changed:
                self._unanswered += 1
                turn = self._admission.arrived(taken, taken.items, timeout_us / 1e6 or None)
            self._apply(turn)

    def finalize(self) -> None:
        """Waits until all requests are answered, because they need the pool, and then closes it."""
        with self._changed:
            self._changed.wait_for(lambda: self._unanswered == 0)
        self._closed.set()
        self._pool.shutdown()

    def _watch(self) -> None:
        while not self._closed.wait(POLL_S):
            with self._changed:
                turn = self._admission.poll()
            self._apply(turn)

    def _apply(self, turn: Turn[_Request]) -> None:
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
        # Triton 24.10 crashes if two threads increment one metric at the same time.
        with self._refused_lock:
            self._refused.increment(sum(request.items for request, _ in requests))

    def _end(self, request: _Request, outcome: Outcome) -> None:
        with self._changed:
            took_s = time.monotonic() - self._started_s.pop(request)
            turn = self._admission.ended(request.items, None if isinstance(outcome, FlowError) else took_s)
        self._apply(turn)
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
        call: Call = partial(_call, request)
        if request.items == 1:
            self._pool.submit(Flow(plan, request.given, call, self._pool.submit, done).start)
            return
        gathering = Gathering(request.items, done)
        for index in range(request.items):
            item = {name: array[index : index + 1] for name, array in request.given.items()}
            flow = Flow(plan, item, call, self._pool.submit, partial(gathering.put, index))
            self._pool.submit(flow.start)


def _trace_context(parameters: str) -> dict[str, str]:
    """Returns the headers of the trace among the parameters of a request, which Triton gives as JSON."""
    if TRACE_HEADERS[0] not in parameters.lower():
        return {}
    return {name: text for name, text in json.loads(parameters).items() if name.lower() in TRACE_HEADERS}


def _call(request: _Request, step: PipelineStep, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Runs a one-task front through Triton's scheduler.

    Raises:
        FlowError: The call failed for any reason; any other exception would leave the request without an answer.
    """
    try:
        items = len(next(iter(inputs.values())))
        clock = np.tile(np.array([request.clock], np.int64), (items, 1))
        response = pb_utils.InferenceRequest(
            model_name=step.model,
            inputs=[tensor_of(name, array) for name, array in {**inputs, CLOCK_TENSOR: clock}.items()],
            requested_output_names=list(step.outputs),
            timeout=request.timeout_us,
            request_id=request.request_id,
            parameters=dict(request.parameters),
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
    """Converts the error of a front. Triton 24.10 keeps only its message, which starts with the blame, not its code."""
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
