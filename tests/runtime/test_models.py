"""Tests of the models as the python backend calls them, with a fake of its module."""

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from jigsaw_triton.resources import templates_dir
from jigsaw_triton.runtime.admission import MAX_IN_FLIGHT
from jigsaw_triton.runtime.dtypes import BF16, Array
from jigsaw_triton.runtime.spec import (
    ANSWER_PREFIX,
    ANSWERED_OUTPUT,
    CLOCK_TENSOR,
    RUN_DIR_VARIABLE,
    TOKEN_OUTPUT,
    PipelineSpec,
    PipelineStep,
    RunnerSpec,
    StepSpec,
    TensorSpec,
    to_json,
)
from jigsaw_triton.runtime.steps import STEP_FILE
from jigsaw_triton.runtime.trace import run_from_json
from tests.runtime import fake_pb_utils as pb

X, Y, Z = TensorSpec("X", "INT64", (1,)), TensorSpec("Y", "INT64", (1,)), TensorSpec("Z", "INT64", (1,))
Start = Callable[..., Any]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Start]:
    """Returns a function that loads a template's model.py and initialises its model with a spec."""
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path / "run"))
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", pb)
    monkeypatch.setattr(pb.InferenceRequest, "models", {})
    before = set(sys.modules)
    models = []

    def load(template: str, spec: RunnerSpec | StepSpec | PipelineSpec, folder: Path = Path("/none")) -> Any:
        path = templates_dir() / template / "model.py"
        module_spec = importlib.util.spec_from_file_location(f"template_{template}", path)
        assert module_spec is not None
        assert module_spec.loader is not None
        module = importlib.util.module_from_spec(module_spec)
        module_spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        config = {"parameters": {"spec": {"string_value": to_json(spec)}}}
        args = {"model_name": "d", "model_instance_name": "d_0_0", "model_config": json.dumps(config)}
        model.initialize({**args, "model_repository": str(folder), "model_version": "1"})
        models.append(model)
        return model

    yield load
    for model in models:
        if hasattr(model, "finalize"):
            model.finalize()
    for name in set(sys.modules) - before:
        if name.startswith("jigsaw_triton.runtime"):
            del sys.modules[name]


def column(*values: int) -> Array:
    return np.array(values, np.int64).reshape(-1, 1)


def content(response: pb.InferenceResponse) -> dict[str, list[int]] | tuple[str, int]:
    error = response.error()
    if error is not None:
        return error.message(), error.code()
    return {tensor.name(): tensor.as_numpy().ravel().tolist() for tensor in response.output_tensors()}


@pytest.mark.parametrize(
    "template", sorted(path.name for path in templates_dir().iterdir() if any(path.glob("config*.pbtxt")))
)
def test_each_template_has_a_valid_configuration(template: str) -> None:
    for path in (templates_dir() / template).glob("config*.pbtxt"):
        config = text_format.Parse(path.read_text(), ModelConfig())
        # The variants of template `folder` have their own.
        assert (bool(config.backend) != bool(config.platform)) == (template != "folder")


MODEL = """\
class Model:
    def __init__(self, folder, parameters, threads): pass
    def __call__(self, inputs):
        if 7 in inputs["X"]: raise ValueError("seven")
        return {"Y": inputs["X"] + 1, "Z": inputs["X"] + 2}
"""


def variant(start: Start, folder: Path) -> Any:
    """Loads a variant with two outputs."""
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "variant.py").write_text(MODEL)
    return start("python", RunnerSpec("python", (X,), (Y, Z)), folder)


def test_a_variant_answers_with_the_requested_outputs(start: Start, tmp_path: Path) -> None:
    requests = [
        pb.Request({"X": column(1)}, ("Z",)),
        pb.Request({"X": column(7)}, ("Z",)),
        pb.Request({"X": column(3)}, ("Y", "Z")),
    ]
    assert [content(response) for response in variant(start, tmp_path).execute(requests)] == [
        {"Z": [3]},
        ("ValueError: seven", pb.TritonError.INTERNAL),
        {"Y": [4], "Z": [5]},
    ]


def test_a_variant_answers_each_call_with_its_token(start: Start, tmp_path: Path) -> None:
    requests = [
        pb.Request({"X": column(1, 2)}, ("Y", TOKEN_OUTPUT), request_id="#11"),
        pb.Request({"X": column(7)}, ("Y", TOKEN_OUTPUT), request_id="#12"),
        pb.Request({"X": column(3)}, (TOKEN_OUTPUT, "Y"), request_id="one,two#13"),
        pb.Request({"X": column(4)}, ("Y", TOKEN_OUTPUT)),
    ]
    assert [content(response) for response in variant(start, tmp_path).execute(requests)] == [
        {"Y": [2, 3], TOKEN_OUTPUT: [11, 11]},
        ("ValueError: seven", pb.TritonError.INTERNAL),
        {TOKEN_OUTPUT: [13], "Y": [4]},
        {"Y": [5], TOKEN_OUTPUT: [0]},
    ]


def test_a_variant_traces_batches_of_requests_with_an_id(start: Start, tmp_path: Path) -> None:
    model = variant(start, tmp_path / "node-0-1g-0" / "d")
    model.execute([pb.Request({"X": column(1, 2)}, ("Y",), request_id="#9")])
    assert not (tmp_path / "run").exists()
    model.execute(
        [
            pb.Request({"X": column(1, 2)}, ("Y",), request_id="a,b#11"),
            pb.Request({"X": column(3)}, ("Y",), request_id="#12"),
            pb.Request({"X": column(7)}, ("Y",), request_id="c#13"),
        ]
    )
    (line,) = (tmp_path / "run" / "traces" / "workers" / "node-0-1g-0" / "d_0_0.jsonl").read_text().splitlines()
    run = run_from_json(line)
    assert (run.ids, run.tokens, run.worker, run.model) == (("a", "b", "c"), (11, 13), "node-0-1g-0", "d")
    assert run.items == 4
    assert run.took_ms >= 0


def test_a_variant_outside_a_deployment_traces_nothing(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(RUN_DIR_VARIABLE)
    (response,) = variant(start, tmp_path).execute([pb.Request({"X": column(1)}, ("Y",), request_id="a#1")])
    assert content(response) == {"Y": [2]}


CODE = """\
from jigsaw_triton.runtime.steps import Answer

def step(A):
    if A[0] == 7:
        raise ValueError("seven \\0 \\ud800")
    if A[0] == 100:
        return Answer(END=A, MID=A + 1)
    return {"B": A * 10}
"""
STEP_OUTPUTS = ("B", TOKEN_OUTPUT, ANSWERED_OUTPUT, f"{ANSWER_PREFIX}MID", f"{ANSWER_PREFIX}END")
"""Outputs that the gateway requests of a step's model."""


def code(start: Start, folder: Path, source: str = CODE) -> Any:
    """Loads the model of a python step with output B, in a graph with outputs MID and END."""
    (folder / "1").mkdir(parents=True)
    (folder / "1" / STEP_FILE).write_text(source)
    tensors = {name: TensorSpec(name, "INT64", (1,)) for name in ("A", "B", "MID", "END")}
    answers = (tensors["MID"], tensors["END"])
    return start("step", StepSpec("two", "steps/two.py", (tensors["A"],), (tensors["B"],), answers), folder)


def test_a_step_runs_its_code_once_per_request(start: Start, tmp_path: Path) -> None:
    requests = [
        pb.Request({"A": column(value)}, STEP_OUTPUTS, request_id=f"#{token}")
        for token, value in ((1, 2), (2, 7), (3, 3))
    ]
    assert [content(response) for response in code(start, tmp_path).execute(requests)] == [
        {"B": [20], TOKEN_OUTPUT: [1], ANSWERED_OUTPUT: [0]},
        (r"step two: ValueError: seven \0 \ud800 (steps/two.py:5)", pb.TritonError.INTERNAL),
        {"B": [30], TOKEN_OUTPUT: [3], ANSWERED_OUTPUT: [0]},
    ]


def test_a_step_may_answer_the_whole_request(start: Start, tmp_path: Path) -> None:
    (response,) = code(start, tmp_path).execute([pb.Request({"A": column(100)}, STEP_OUTPUTS, request_id="#5")])
    assert content(response) == {
        TOKEN_OUTPUT: [5],
        ANSWERED_OUTPUT: [1],
        f"{ANSWER_PREFIX}MID": [101],
        f"{ANSWER_PREFIX}END": [100],
    }


def test_a_step_traces_requests_with_an_id(start: Start, tmp_path: Path) -> None:
    model = code(start, tmp_path / "steps-g" / "d")
    model.execute([pb.Request({"A": column(1)}, STEP_OUTPUTS, request_id="#5")])
    model.execute([pb.Request({"A": column(7)}, STEP_OUTPUTS, request_id="a#6")])
    (line,) = (tmp_path / "run" / "traces" / "workers" / "steps-g" / "d_0_0.jsonl").read_text().splitlines()
    run = run_from_json(line)
    assert (run.ids, run.tokens, run.worker, run.items) == (("a",), (6,), "steps-g", 1)


def test_a_step_that_cannot_be_loaded_fails_the_model(start: Start, tmp_path: Path) -> None:
    # The fixture reloads the runtime, so this is not the StepError that this module could import.
    with pytest.raises(Exception, match=r"step two: ModuleNotFoundError: No module named 'nowhere' \(steps/two.py:1\)"):
        code(start, tmp_path, f"import nowhere\n{CODE}")


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
    patient = pb.Request({"X": column(1)}, ("END",), timeout=60_000_000)
    model.execute([patient])
    message, code = answer(late)
    assert (message.startswith("graph g: overloaded: "), code) == (True, pb.TritonError.UNAVAILABLE)
    going.set()
    assert [answer(request) for request in [*requests, patient]] == [{"END": [3]}] * (MAX_IN_FLIGHT + 1)
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
