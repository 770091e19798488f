"""The models as the python backend calls them, with a stand-in for its module."""

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event, Timer
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from jigsaw_triton.resources import templates_dir
from jigsaw_triton.runtime.admission import MOST_UNDER_WAY
from jigsaw_triton.runtime.calls import Calls
from jigsaw_triton.runtime.dtypes import BF16, Array
from jigsaw_triton.runtime.pace import AT_ONCE, MOST_PER_S
from jigsaw_triton.runtime.spec import (
    METRICS_VARIABLE,
    RUN_DIR_VARIABLE,
    Code,
    DispatcherSpec,
    PipelineSpec,
    PipelineStep,
    RunnerSpec,
    TensorSpec,
    to_json,
)
from jigsaw_triton.runtime.trace import hop_from_json, run_from_json
from tests.runtime import fake_pb_utils as pb
from tests.runtime.fake_worker import Call, FakeWorker, Refuse
from tests.runtime.test_route import write

X, Y, Z = TensorSpec("X", "INT64", (1,)), TensorSpec("Y", "INT64", (1,)), TensorSpec("Z", "INT64", (1,))
Start = Callable[..., Any]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Start]:
    """Loads a template's model.py and initializes its model with a spec."""
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path / "run"))
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", pb)
    monkeypatch.setenv(METRICS_VARIABLE, "127.0.0.1:9")
    monkeypatch.setattr(pb.InferenceRequest, "models", {})
    before = set(sys.modules)
    models = []

    def load(template: str, spec: DispatcherSpec | RunnerSpec | PipelineSpec, folder: Path = Path("/none")) -> Any:
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


def told(response: pb.InferenceResponse) -> dict[str, list[int]] | tuple[str, int]:
    error = response.error()
    if error is not None:
        return error.message(), error.code()
    return {tensor.name(): tensor.as_numpy().ravel().tolist() for tensor in response.output_tensors()}


@pytest.mark.parametrize(
    "template", ["dispatcher", "pipeline", "ensemble", "onnxruntime", "torch", "python", "emulated"]
)
def test_each_template_has_a_configuration_that_triton_reads(template: str) -> None:
    for path in (templates_dir() / template).glob("config*.pbtxt"):
        config = text_format.Parse(path.read_text(), ModelConfig())
        assert bool(config.backend) != bool(config.platform)


def test_a_dispatcher_answers_each_request(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(call: Call) -> dict[str, Array]:
        if 7 in call.inputs["X"]:
            raise Refuse(500, "seven")
        return {"Y": 2 * call.inputs["X"], "Z": 3 * call.inputs["X"]}

    (tmp_path / "routes").mkdir()
    write(tmp_path / "routes" / "d.json", {"worker": "a", "model": "m", "batch": 8, "slots": 1})
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path))
    with FakeWorker(tmp_path / "workers" / "a.sock", handler) as worker:
        model = start("dispatcher", DispatcherSpec("g", "t", "stack", (X,), (Y, Z)))
        responses = model.execute(
            [
                pb.Request({"X": column(1, 2)}, ("Y",)),
                pb.Request({"X": column(7)}, ("Y",)),
                pb.Request({"X": column(3)}, ("Z", "Y")),
            ]
        )
        assert worker.calls[0].outputs == ("Y", "Z")
        model.finalize()
    assert [told(response) for response in responses] == [
        {"Y": [2, 4]},
        ("task t: worker a: seven", pb.TritonError.INTERNAL),
        {"Z": [9], "Y": [6]},
    ]


def test_a_dispatcher_without_a_worker_is_unavailable(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path))
    model = start("dispatcher", DispatcherSpec("g", "t", "stack", (X,), (Y,), wait_timeout_ms=1))
    (response,) = model.execute([pb.Request({"X": column(1)}, ("Y",))])
    assert told(response) == ("task t: none of its 0 workers had room within 0.001 s", pb.TritonError.UNAVAILABLE)
    assert "route d.json cannot be read" in pb.Logger.lines[-1]


def test_a_dispatcher_refuses_what_is_late(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker takes 50 ms a batch of one, and three requests wait since the first began."""
    (tmp_path / "routes").mkdir()
    write(tmp_path / "routes" / "d.json", {"worker": "a", "model": "m", "batch": 1, "slots": 1})
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path))
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def handler(call: Call) -> dict[str, Array]:
        now[0] += 0.050
        return {"Y": call.inputs["X"]}

    def ask(timeout_us: int = 0) -> dict[str, list[int]] | tuple[str, int]:
        (response,) = model.execute([pb.Request({"X": column(1)}, ("Y",), timeout_us)])
        return told(response)

    with FakeWorker(tmp_path / "workers" / "a.sock", handler):
        model = start("dispatcher", DispatcherSpec("g", "t", "stack", (X,), (Y,), slack_ms=40.0, share_ms=40.0, full=1))
        assert ask() == {"Y": [1]}
        reason = "task t: overloaded: the request waited for 50 ms and cannot be answered within"
        assert ask() == (f"{reason} the latency promised", pb.TritonError.UNAVAILABLE)
        assert ask(45_000) == (f"{reason} its timeout of 45 ms", pb.TritonError.UNAVAILABLE)
        assert ask(60_000) == {"Y": [1]}


def test_a_dispatcher_is_in_no_hurry_with_many_refusals(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a batch that took 10 s all of the queue is late; the first of it may go at once."""
    (tmp_path / "routes").mkdir()
    write(tmp_path / "routes" / "d.json", {"worker": "a", "model": "m", "batch": 8, "slots": 1})
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path))
    now = [1000.0]
    pauses: list[float] = []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", pauses.append)

    def handler(call: Call) -> dict[str, Array]:
        now[0] += 10.0
        return {"Y": call.inputs["X"]}

    def served() -> int:
        responses = model.execute([pb.Request({"X": column(1)}, ("Y",)) for _ in range(8)])
        return sum(response.error() is None for response in responses)

    with FakeWorker(tmp_path / "workers" / "a.sock", handler):
        model = start("dispatcher", DispatcherSpec("g", "t", "stack", (X,), (Y,), slack_ms=40.0, share_ms=40.0, full=8))
        assert served() == 8
        assert [served() for _ in range(AT_ONCE // 8)] == [0] * (AT_ONCE // 8)
        assert pauses == []
        assert served() == 0
        assert pauses == [pytest.approx(8 / MOST_PER_S)]


def test_a_dispatcher_writes_what_became_of_requests_with_an_id(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handler(call: Call) -> dict[str, Array]:
        if 7 in call.inputs["X"]:
            raise Refuse(400, "seven")
        return {"Y": call.inputs["X"]}

    (tmp_path / "routes").mkdir()
    write(tmp_path / "routes" / "d.json", {"worker": "a", "model": "m", "batch": 8, "slots": 1, "variant": "v"})
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path))
    with FakeWorker(tmp_path / "workers" / "a.sock", handler) as worker:
        model = start("dispatcher", DispatcherSpec("g", "t", "stack", (X,), (Y,), variants=("v",)))
        model.execute([pb.Request({"X": column(1)}, ("Y",))])
        assert not (tmp_path / "traces").exists()
        model.execute(
            [
                pb.Request({"X": column(1, 2)}, ("Y",), request_id="one"),
                pb.Request({"X": column(3)}, ("Y",)),
                pb.Request({"X": column(7)}, ("Y",), request_id="bad"),
            ]
        )
        model.finalize()
    good, bad = map(hop_from_json, (tmp_path / "traces" / "gateway" / "d.0.jsonl").read_text().splitlines())
    assert (good.request, good.outcome, good.requests, good.message) == ("one", "answered", 3, "")
    assert [(c.worker, c.variant, c.items, c.batch, c.outcome, c.again) for c in good.calls] == [
        ("a", "v", 2, 4, "refused", False),
        ("a", "v", 2, 2, "answered", True),
    ]
    assert (bad.request, bad.outcome, bad.message) == ("bad", "request", "task t: worker a: seven")
    assert good.returned_ms >= good.calls[-1].ended_ms >= good.calls[-1].sent_ms >= 0
    assert [call.request_id for call in worker.calls] == ["", *(f"one,bad#{number}" for number in (1, 2, 3, 4))]


def test_a_variant_writes_the_batches_that_bring_an_id(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path / "run"))
    folder = tmp_path / "node-0-1g-0" / "d"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "variant.py").write_text(
        "class Model:\n"
        "    def __init__(self, folder, parameters, threads): pass\n"
        "    def __call__(self, inputs): return {'Y': inputs['X']}\n"
    )
    model = start("python", RunnerSpec("python", (X,), (Y,)), folder)
    model.execute([pb.Request({"X": column(1, 2)}, ("Y",))])
    model.execute([pb.Request({"X": column(1, 2)}, ("Y",), request_id="7#1"), pb.Request({"X": column(3)}, ("Y",))])
    (line,) = (tmp_path / "run" / "traces" / "workers" / "node-0-1g-0" / "d_0_0.jsonl").read_text().splitlines()
    run = run_from_json(line)
    assert (run.ids, run.worker, run.model, run.items) == (("7#1",), "node-0-1g-0", "d", 3)


def test_a_batch_of_large_requests_need_not_have_emptied_the_queue(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton does not join requests of three items where eight are full: six are all that it joins."""
    (tmp_path / "routes").mkdir()
    write(tmp_path / "routes" / "d.json", {"worker": "a", "model": "m", "batch": 8, "slots": 1})
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path))
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def handler(call: Call) -> dict[str, Array]:
        now[0] += 0.050
        return {"Y": call.inputs["X"]}

    def ask() -> list[bool]:
        requests = [pb.Request({"X": column(1, 2, 3)}, ("Y",)) for _ in range(2)]
        return [response.error() is None for response in model.execute(requests)]

    with FakeWorker(tmp_path / "workers" / "a.sock", handler):
        model = start("dispatcher", DispatcherSpec("g", "t", "stack", (X,), (Y,), slack_ms=40.0, share_ms=40.0, full=8))
        assert ask() == [True, True]
        assert ask() == [False, False]


def test_a_pipeline_needs_its_environment(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUN_DIR_VARIABLE)
    with pytest.raises(RuntimeError, match=f"{RUN_DIR_VARIABLE} is not set"):
        start("pipeline", pipeline())


@pytest.mark.parametrize("variable", [RUN_DIR_VARIABLE, METRICS_VARIABLE])
def test_a_dispatcher_needs_its_environment(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path))
    monkeypatch.delenv(variable)
    with pytest.raises(RuntimeError, match=f"{variable} is not set"):
        start("dispatcher", DispatcherSpec("g", "t", "stack", (X,), (Y,)))


def test_a_variant_answers_with_the_outputs_asked_for(start: Start, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "variant.py").write_text(
        "class Model:\n"
        "    def __init__(self, folder, parameters, threads): pass\n"
        "    def __call__(self, inputs):\n"
        "        if 7 in inputs['X']: raise ValueError('seven')\n"
        "        return {'Y': inputs['X'] + 1, 'Z': inputs['X'] + 2}\n"
    )
    model = start("python", RunnerSpec("python", (X,), (Y, Z)), tmp_path)
    responses = model.execute(
        [
            pb.Request({"X": column(1)}, ("Z",)),
            pb.Request({"X": column(7)}, ("Z",)),
            pb.Request({"X": column(3)}, ("Y", "Z")),
        ]
    )
    assert [told(response) for response in responses] == [
        {"Z": [3]},
        ("ValueError: seven", pb.TritonError.INTERNAL),
        {"Y": [4], "Z": [5]},
    ]


def pipeline(*, split: bool = False) -> PipelineSpec:
    """Two steps in a row; the second's output is the graph's, and the first's too."""
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
    return told(response)


def test_a_pipeline_answers_by_the_response_sender(start: Start) -> None:
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


def test_a_pipeline_keeps_no_hold_of_tritons_memory(start: Start) -> None:
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


def test_a_steps_error_reaches_the_client_that_caused_it(start: Start) -> None:
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


def test_the_code_of_a_steps_error_follows_from_whom_it_blames(start: Start) -> None:
    """Triton 24.10 says INTERNAL of every error of a step."""

    def late(request: pb.InferenceRequest) -> pb.InferenceResponse:
        return pb.InferenceResponse([], error=pb.TritonError("worker: task two: overloaded", pb.TritonError.INTERNAL))

    pb.InferenceRequest.models |= {"one": add_one, "two": late}
    model = start("pipeline", pipeline())
    request = pb.Request({"X": column(1)}, ("END",))
    model.execute([request])
    assert answer(request) == ("task two: overloaded", pb.TritonError.UNAVAILABLE)


def test_requests_that_have_waited_too_long_for_a_step_are_refused_and_counted(start: Start) -> None:
    going = Event()

    def slow(call: pb.InferenceRequest) -> pb.InferenceResponse:
        going.wait(30)
        return add_one(call)

    pb.InferenceRequest.models |= {"one": slow, "two": add_one}
    model = start("pipeline", replace(pipeline(), slo_ms=0.0))
    requests = [pb.Request({"X": column(1)}, ("END",)) for _ in range(MOST_UNDER_WAY)]
    model.execute(requests)
    late = pb.Request({"X": column(1)}, ("END",))
    model.execute([late])
    patient = pb.Request({"X": column(1)}, ("END",), timeout=60_000_000)
    model.execute([patient])
    message, code = answer(late)
    assert (message.startswith("graph g: overloaded: "), code) == (True, pb.TritonError.UNAVAILABLE)
    going.set()
    assert [answer(request) for request in [*requests, patient]] == [{"END": [3]}] * (MOST_UNDER_WAY + 1)
    model.finalize()
    refused = pb.MetricFamily.made["jigsaw_refused_total", "graph=g", "reason=late", "task="]
    assert refused.total == 1


def test_bf16_goes_through_a_pipeline_bit_for_bit(start: Start) -> None:
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


def test_a_step_that_is_not_there(start: Start) -> None:
    pb.InferenceRequest.models |= {"one": add_one}
    model = start("pipeline", pipeline())
    request = pb.Request({"X": column(1)}, ("END",))
    model.execute([request])
    assert answer(request) == ("model two is not ready", pb.TritonError.UNAVAILABLE)


def test_the_items_of_a_batch_go_their_own_ways_where_asked(start: Start) -> None:
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


def test_a_step_that_answers_without_an_output(start: Start) -> None:
    pb.InferenceRequest.models |= {"one": lambda request: pb.InferenceResponse([])}
    model = start("pipeline", pipeline())
    request = pb.Request({"X": column(1)}, ("END",))
    model.execute([request])
    assert answer(request) == ("step one: KeyError: 'B'", pb.TritonError.INTERNAL)


def test_finalize_waits_for_what_is_under_way_and_for_the_branches_it_has_yet_to_start(start: Start) -> None:
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
    assert [told(response) for response in request.sender.sent] == [{"LEFT": [3], "RIGHT": [3]}]


CODE = """\
from jigsaw_triton.runtime.steps import Answer

def step(A):
    if A[0] == 7:
        raise ValueError("seven \\0 \\ud800")
    if A[0] == 100:
        return Answer(END=A, MID=A + 1)
    return {"B": A * 10}
"""


def coded(folder: Path, source: str = CODE) -> PipelineSpec:
    """A dispatcher, then a python step, whose output is the graph's END; the dispatcher's is its MID."""
    (folder / "1" / "steps").mkdir(parents=True)
    (folder / "1" / "steps" / "two.py").write_text(source)
    b = TensorSpec("B", "INT64", (1,))
    steps = (
        PipelineStep("one", {"A": "inputs.X"}, {"B": "one.B"}),
        PipelineStep("two", {"A": "one.B"}, {"B": "two.B"}, Code("steps/two.py", (b,))),
    )
    answers = (TensorSpec("MID", "INT64", (1,)), TensorSpec("END", "INT64", (1,)))
    return PipelineSpec("g", {"X": "inputs.X"}, {"MID": "one.B", "END": "two.B"}, steps, split=True, answers=answers)


def test_a_pipeline_runs_code_request_by_request(start: Start, tmp_path: Path) -> None:
    pb.InferenceRequest.models |= {"one": add_one}
    model = start("pipeline", coded(tmp_path), tmp_path)
    one, batch, failing = (pb.Request({"X": column(*values)}, ("END", "MID")) for values in ((1,), (2, 3), (6,)))
    model.execute([one, failing, batch])
    assert answer(one) == {"END": [20], "MID": [2]}
    assert answer(batch) == {"END": [30, 40], "MID": [3, 4]}
    assert answer(failing) == (r"step two: ValueError: seven \0 \ud800 (steps/two.py:5)", pb.TritonError.INTERNAL)


HANGING = """\
from threading import Event

entered, going = Event(), Event()

def step(A):
    if A[0] == 7:
        entered.set()
        going.wait(30)
    return {"B": A}
"""


def test_a_request_whose_code_hangs_fails_and_holds_up_neither_others_nor_the_end(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pb.InferenceRequest.models |= {"one": add_one}
    model = start("pipeline", coded(tmp_path, HANGING), tmp_path)
    now_s = 0.0
    model._calls = Calls(30.0, lambda: now_s)
    code = sys.modules["jigsaw_step_two"]
    hanging, batch = pb.Request({"X": column(6)}, ("END",)), pb.Request({"X": column(*range(10, 74))}, ("END",))
    model.execute([hanging])
    assert code.entered.wait(5)
    now_s = 31.0
    model._give_up()
    assert answer(hanging) == ("step two: steps/two.py has not returned within 30 s", pb.TritonError.INTERNAL)
    model.execute([batch])
    assert answer(batch) == {"END": list(range(11, 75))}
    timers: list[tuple[object, ...]] = []
    monkeypatch.setattr(os, "_exit", lambda code: None)
    monkeypatch.setattr(Timer, "start", lambda timer: timers.append((timer.function, timer.args, timer.daemon)))
    model.finalize()
    assert timers == [(os._exit, (0,), True)]
    code.going.set()
    model._pool.shutdown(wait=True)
    assert len(hanging.sender.sent) == 1


def test_a_pipeline_writes_what_became_of_requests_with_an_id(start: Start, tmp_path: Path) -> None:
    pb.InferenceRequest.models |= {"one": add_one}
    model = start("pipeline", coded(tmp_path), tmp_path)
    asked = [
        pb.Request({"X": column(value)}, ("END",), request_id=name) for value, name in ((1, "a"), (6, "b"), (2, ""))
    ]
    model.execute(asked)
    for request in asked:
        answer(request)
    lines = (tmp_path / "run" / "traces" / "gateway" / "d_0_0.jsonl").read_text().splitlines()
    good, bad = sorted(map(hop_from_json, lines), key=lambda hop: hop.request)
    assert (good.request, good.graph, good.task, good.code, good.outcome) == (
        "a",
        "g",
        "two",
        "steps/two.py",
        "answered",
    )
    message = r"step two: ValueError: seven \0 \ud800 (steps/two.py:5)"
    assert (bad.request, bad.outcome, bad.message) == ("b", "code", message)
    assert good.returned_ms >= 0


def test_a_pipeline_counts_what_code_does(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pb.MetricFamily, "made", {})
    pb.InferenceRequest.models |= {"one": add_one}
    spec = coded(tmp_path, "import numpy as np\ndef step(A):\n    return {'B': np.ones((5 // A[0], 1), np.int64)}\n")
    code = Code("steps/two.py", (TensorSpec("B", "INT64", (-1, 1)),), yields=("B",))
    model = start("pipeline", replace(spec, steps=(spec.steps[0], replace(spec.steps[1], code=code))), tmp_path)
    asked = [pb.Request({"X": column(value)}, ("END",)) for value in (1, 0, -1, 9)]
    model.execute(asked)
    assert ["END" in answer(request) for request in asked] == [True, True, False, True]
    model.finalize()
    told = {key[0]: metric.total for key, metric in pb.MetricFamily.made.items()}
    assert told.pop("jigsaw_step_seconds_total") > 0
    assert told == {
        "jigsaw_step_calls_total": 4,
        "jigsaw_refused_total": 1,
        "jigsaw_yield_items_total": 3,
        "jigsaw_yield_rows_total": 2 + 5 + 0,
    }
    assert ("jigsaw_refused_total", "graph=g", "reason=code", "task=two") in pb.MetricFamily.made
    assert ("jigsaw_yield_rows_total", "graph=g", "output=B", "task=two") in pb.MetricFamily.made


def test_code_may_answer_the_request(start: Start, tmp_path: Path) -> None:
    pb.InferenceRequest.models |= {"one": add_one}
    model = start("pipeline", coded(tmp_path), tmp_path)
    early, mixed = pb.Request({"X": column(99)}, ("END", "MID")), pb.Request({"X": column(99, 0)}, ("END",))
    model.execute([early, mixed])
    assert answer(early) == {"END": [100], "MID": [101]}
    assert answer(mixed) == {"END": [100, 10]}


def test_an_answer_that_lacks_what_the_client_wants(start: Start, tmp_path: Path) -> None:
    pb.InferenceRequest.models |= {"one": add_one}
    model = start("pipeline", coded(tmp_path, CODE.replace("END=A, ", "")), tmp_path)
    request = pb.Request({"X": column(99)}, ("END",))
    model.execute([request])
    assert answer(request) == ("step two: steps/two.py: output END is missing", pb.TritonError.INTERNAL)


def test_code_that_cannot_be_loaded_fails_the_model(start: Start, tmp_path: Path) -> None:
    # Loaded anew by the fixture, so not the class that this module could name.
    with pytest.raises(Exception, match=r"step two: ModuleNotFoundError: No module named 'nowhere' \(steps/two.py:1\)"):
        start("pipeline", coded(tmp_path, f"import nowhere\n{CODE}"), tmp_path)
