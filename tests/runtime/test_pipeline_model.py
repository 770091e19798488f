"""Tests of pipelines as the Python backend calls them, with a fake of its module."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import numpy as np
import pytest

from jigsaw_triton.runtime.admission import MAX_IN_FLIGHT
from jigsaw_triton.runtime.dtypes import BF16
from jigsaw_triton.runtime.spec import (
    CLOCK_TENSOR,
    PipelineSpec,
    PipelineStep,
)
from tests.runtime import fake_pb_utils as pb
from tests.runtime.conftest import Start, column, content


def pipeline(*, split: bool = False) -> PipelineSpec:
    """Returns a pipeline of two steps in a row, both of whose outputs are outputs of the graph."""
    steps = (
        PipelineStep("one", {"A": "inputs.X"}, {"B": "one.B"}),
        PipelineStep("two", {"A": "one.B"}, {"B": "two.B"}),
    )
    return PipelineSpec("g", {"X": "inputs.X"}, {"MID": "one.B", "END": "two.B"}, steps, split)


def add_one(request: pb.InferenceRequest) -> pb.InferenceResponse:
    return pb.InferenceResponse([pb.Tensor(name, request.arrays["A"] + 1) for name in request.outputs])


def answer(request: pb.Request) -> dict[str, list[int]] | tuple[str, int]:
    assert request.sender.event.wait(5)
    (response,) = request.sender.sent
    assert request.sender.flags == pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
    return content(response)


def test_a_pipeline_answers_through_the_response_sender(start: Start) -> None:
    seen = []

    def two(request: pb.InferenceRequest) -> pb.InferenceResponse:
        seen.append((request.outputs, request.timeout, request.request_id))
        return add_one(request)

    pb.InferenceRequest.models |= {"one": add_one, "two": two}
    model = start("pipeline", pipeline())
    requests = [
        pb.Request({"X": column(1, 2)}, ("MID", "END"), timeout=99, request_id="7"),
        pb.Request({"X": column(5)}, ("MID",)),
    ]
    assert model.execute(requests) is None
    assert [answer(request) for request in requests] == [{"MID": [2, 3], "END": [3, 4]}, {"MID": [6]}]
    assert seen == [(["B"], 99, "7")]


def test_a_pipeline_passes_arrival_and_deadline_to_its_steps(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps get the deadline of the whole request, even if earlier steps took long."""
    now_ns = 5_000_000_000
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns)
    seen: list[tuple[str, list[list[int]], str]] = []

    def note(request: pb.InferenceRequest) -> pb.InferenceResponse:
        nonlocal now_ns
        clock = request.arrays[CLOCK_TENSOR]
        seen.append((request.model_name, clock.tolist(), str(clock.dtype)))
        now_ns += 1_000_000
        return add_one(request)

    pb.InferenceRequest.models |= {"one": note, "two": note}
    model = start("pipeline", replace(pipeline(), slo_ms=70.0))
    request = pb.Request({"X": column(1, 2)}, ("END",))
    model.execute([request])
    answer(request)
    clock = [[5_000_000_000, 5_070_000_000]] * 2
    assert seen == [("one", clock, "int64"), ("two", clock, "int64")]
    seen.clear()
    own = pb.Request({"X": column(1)}, ("MID",), timeout=9_000)
    model.execute([own])
    answer(own)
    assert seen == [("one", [[5_002_000_000, 5_011_000_000]], "int64")]


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ("", {}),
        ('{"priority": 1}', {}),
        ('{"Traceparent": "00-1", "other": "traceparent"}', {"Traceparent": "00-1"}),
        ('{"traceparent": "00-1", "Tracestate": "a=1"}', {"traceparent": "00-1", "Tracestate": "a=1"}),
        ('{"note": "traceparent"}', {}),
    ],
)
def test_a_pipeline_passes_on_the_context_of_the_clients_trace(
    start: Start, given: str, passed: dict[str, str]
) -> None:
    seen = []

    def note(request: pb.InferenceRequest) -> pb.InferenceResponse:
        seen.append(request.parameters)
        return add_one(request)

    pb.InferenceRequest.models |= {"one": note, "two": note}
    model = start("pipeline", pipeline())
    request = pb.Request({"X": column(1)}, ("END",), parameters=given)
    model.execute([request])
    answer(request)
    assert seen == [passed, passed]


def test_a_pipeline_copies_its_inputs_from_tritons_memory(start: Start) -> None:
    pb.InferenceRequest.models |= {"one": add_one, "two": add_one}
    model = start("pipeline", pipeline())
    inputs = column(1)
    request = pb.Request({"X": inputs}, ("END",))
    with ThreadPoolExecutor(1) as blocked:
        model._pool, pool = blocked, model._pool
        blocked.submit(request.sender.event.wait, 0.05)
        model.execute([request])
        inputs[:] = 1000
        assert answer(request) == {"END": [3]}
        model._pool = pool


def test_the_error_of_a_step_reaches_only_the_client_that_caused_it(start: Start) -> None:
    def picky(request: pb.InferenceRequest) -> pb.InferenceResponse:
        if 7 in request.arrays["A"]:
            return pb.InferenceResponse([], error=pb.TritonError("task two: seven", pb.TritonError.UNAVAILABLE))
        return add_one(request)

    pb.InferenceRequest.models |= {"one": add_one, "two": picky}
    model = start("pipeline", pipeline())
    good, bad = pb.Request({"X": column(1)}, ("END",)), pb.Request({"X": column(6)}, ("END",))
    model.execute([bad, good])
    assert answer(good) == {"END": [3]}
    assert answer(bad) == ("task two: seven", pb.TritonError.UNAVAILABLE)


def test_the_error_code_follows_from_the_blame_in_the_message(start: Start) -> None:
    """Triton 24.10 reports every error of a step as INTERNAL."""

    def late(request: pb.InferenceRequest) -> pb.InferenceResponse:
        return pb.InferenceResponse([], error=pb.TritonError("worker: task two: overloaded", pb.TritonError.INTERNAL))

    pb.InferenceRequest.models |= {"one": add_one, "two": late}
    model = start("pipeline", pipeline())
    request = pb.Request({"X": column(1)}, ("END",))
    model.execute([request])
    assert answer(request) == ("task two: overloaded", pb.TritonError.UNAVAILABLE)


def test_requests_that_have_waited_too_long_are_refused_and_counted(start: Start) -> None:
    going = Event()

    def slow(call: pb.InferenceRequest) -> pb.InferenceResponse:
        going.wait(30)
        return add_one(call)

    pb.InferenceRequest.models |= {"one": slow, "two": add_one}
    model = start("pipeline", replace(pipeline(), slo_ms=0.0))
    requests = [pb.Request({"X": column(1)}, ("END",)) for _ in range(MAX_IN_FLIGHT)]
    model.execute(requests)
    late = pb.Request({"X": column(1)}, ("END",))
    model.execute([late])
    last = pb.Request({"X": column(1)}, ("END",), timeout=60_000_000)
    model.execute([last])
    message, code = answer(late)
    assert (message.startswith("graph g: overloaded: "), code) == (True, pb.TritonError.UNAVAILABLE)
    going.set()
    assert [answer(request) for request in [*requests, last]] == [{"END": [3]}] * (MAX_IN_FLIGHT + 1)
    model.finalize()
    refused = pb.MetricFamily.made["jigsaw_refused_total", "graph=g", "reason=late", "task="]
    assert refused.total == 1


def test_bf16_tensors_pass_a_pipeline_bit_for_bit(start: Start) -> None:
    def echo(request: pb.InferenceRequest) -> pb.InferenceResponse:
        capsule = pb.Tensor("A", request.arrays["A"]).to_dlpack()
        return pb.InferenceResponse([pb.Tensor.from_dlpack("B", capsule)])

    pb.InferenceRequest.models |= {"one": echo, "two": echo}
    model = start("pipeline", pipeline())
    bits = np.array([[0x3F80], [0xFF80], [0x7FC1]], np.uint16).view(BF16)
    request = pb.Request({"X": bits}, ("END",))
    model.execute([request])
    assert request.sender.event.wait(30)
    (response,) = request.sender.sent
    (tensor,) = response.output_tensors()
    assert tensor.values().dtype == BF16
    assert tensor.values().tobytes() == bits.tobytes()


def test_a_missing_front_makes_the_request_unavailable(start: Start) -> None:
    pb.InferenceRequest.models |= {"one": add_one}
    model = start("pipeline", pipeline())
    request = pb.Request({"X": column(1)}, ("END",))
    model.execute([request])
    assert answer(request) == ("model two is not ready", pb.TritonError.UNAVAILABLE)


def test_a_split_batch_is_processed_item_by_item(start: Start) -> None:
    sizes = []

    def one(request: pb.InferenceRequest) -> pb.InferenceResponse:
        sizes.append(len(request.arrays["A"]))
        return add_one(request)

    pb.InferenceRequest.models |= {"one": one, "two": one}
    model = start("pipeline", pipeline(split=True))
    request = pb.Request({"X": column(1, 2, 3)}, ("END", "MID"))
    model.execute([request])
    assert answer(request) == {"END": [3, 4, 5], "MID": [2, 3, 4]}
    assert sizes == [1] * 6


def test_a_missing_output_of_a_step_is_an_internal_error(start: Start) -> None:
    pb.InferenceRequest.models |= {"one": lambda request: pb.InferenceResponse([])}
    model = start("pipeline", pipeline())
    request = pb.Request({"X": column(1)}, ("END",))
    model.execute([request])
    assert answer(request) == ("step one: KeyError: 'B'", pb.TritonError.INTERNAL)


def test_finalize_waits_for_requests_in_flight_including_branches_not_yet_started(start: Start) -> None:
    request = pb.Request({"X": column(1)}, ("LEFT", "RIGHT"))

    def slow(call: pb.InferenceRequest) -> pb.InferenceResponse:
        request.sender.event.wait(0.05)
        return add_one(call)

    pb.InferenceRequest.models |= {"one": slow, "left": slow, "right": slow}
    steps = (
        PipelineStep("one", {"A": "inputs.X"}, {"B": "one.B"}),
        PipelineStep("left", {"A": "one.B"}, {"B": "left.B"}),
        PipelineStep("right", {"A": "one.B"}, {"B": "right.B"}),
    )
    model = start("pipeline", PipelineSpec("g", {"X": "inputs.X"}, {"LEFT": "left.B", "RIGHT": "right.B"}, steps))
    model.execute([request])
    model.finalize()
    assert [content(response) for response in request.sender.sent] == [{"LEFT": [3], "RIGHT": [3]}]
