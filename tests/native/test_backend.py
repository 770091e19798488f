"""The layer between tritonserver and the core, tested with a fake server."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.native import specs, triton
from tests.native.conftest import column, double
from tests.native.core import Array, texts
from tests.native.triton import Model, ServerError
from tests.native.worker import Answer, Call, Handler, Refuse, Worker
from tests.waiting import eventually


class Gateway:
    """A started server with its run directory, models and workers."""

    def __init__(self, run_dir: Path, stack: ExitStack) -> None:
        self.run_dir = run_dir
        self._stack = stack
        self.models: list[Model] = []
        self.workers: list[Worker] = []

    def worker(self, name: str = "w", handler: Handler = double) -> Worker:
        made = self._stack.enter_context(Worker(self.run_dir, name, handler))
        self.workers.append(made)
        return made

    def model(self, spec: dict[str, Any] | None = None, name: str = "front") -> Model:
        specs.write_route(self.run_dir, specs.entry("w"))
        self.models.append(Model(triton.config(spec or specs.spec(), name)))
        return self.models[-1]


@pytest.fixture
def gateway(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.setenv("JIGSAW_RUN_DIR", str(run_dir))
    triton.start()
    with ExitStack() as stack:
        gateway = Gateway(run_dir, stack)
        yield gateway
        triton.fail("")
        for worker in gateway.workers:
            worker.answering.set()
        for model in gateway.models:
            model.unload()
    eventually(lambda: not triton.leaks())


def test_requests_are_executed_and_answered(gateway: Gateway) -> None:
    worker = gateway.worker()
    model = gateway.model()
    assert model.ask({"X": column(1, 2)})["Y"].tolist() == [[2], [4]]
    requests = model.execute(*({"inputs": {"X": column(7)}} for _ in range(5)))
    assert [request.wait()["Y"].item() for request in requests] == [14] * 5
    assert sum(worker.batches) == 7
    assert model.statistics == (6, 0, 6, 7)


def test_the_error_code_of_a_failure_follows_its_blame(gateway: Gateway) -> None:
    def refuse(call: Call) -> Answer:
        raise Refuse(call.inputs["X"].item(), "no")

    gateway.worker(handler=refuse)
    model = gateway.model()
    for status, code in ((400, "INVALID_ARG"), (500, "INTERNAL")):
        answer = model.ask({"X": column(status)})
        assert (answer.code, answer.message) == (code, "task t: worker w: no")
    late = model.ask({"X": column(503)}, timeout_us=50_000)
    assert late.code == "UNAVAILABLE"
    assert model.statistics == (0, 3, 0, 0)


@pytest.mark.parametrize(("status", "beginning"), [(400, "request: "), (500, "model: "), (503, "worker: ")])
def test_a_pipeline_gets_the_blame_in_the_message(gateway: Gateway, status: int, beginning: str) -> None:
    def refuse(call: Call) -> Answer:
        raise Refuse(status, "no")

    gateway.worker(handler=refuse)
    model = gateway.model(specs.spec(blaming=True, slo_ms=100))
    assert model.ask({"X": column(1)}).message.startswith(beginning)


def test_a_cancelled_request_is_dropped(gateway: Gateway) -> None:
    worker = gateway.worker()
    model = gateway.model()
    worker.answering.clear()
    (first,) = model.execute({"inputs": {"X": column(1)}})
    worker.wait(1)
    (second,) = model.execute({"inputs": {"X": column(2)}})
    second.cancel()
    assert second.wait().code == "CANCELLED"
    worker.answering.set()
    assert first.wait()["Y"].item() == 2
    assert len(worker.calls) == 1


@pytest.mark.parametrize("buffers", [0, 1, 2, 5])
def test_an_input_may_consist_of_several_buffers(gateway: Gateway, buffers: int) -> None:
    gateway.worker()
    model = gateway.model()
    values = column(*range(3 if buffers else 0))
    assert model.ask({"X": values}, buffers=buffers)["Y"].tolist() == (2 * values).tolist()


def test_texts_round_trip(gateway: Gateway) -> None:
    kind = ("BYTES", (1,))
    gateway.worker(handler=lambda call: {"Y": call.inputs["X"]})
    task = specs.task(inputs={"X": ("inputs.X", kind)}, outputs={"Y": kind})
    model = gateway.model(specs.spec([task], {"X": kind}, {"Y": ("t.Y", kind)}))
    found = model.ask({"X": texts(b"a", b"", b"long" * 99).reshape(3, 1)})["Y"]
    assert found.ravel().tolist() == [b"a", b"", b"long" * 99]


def test_only_requested_outputs_are_returned(gateway: Gateway) -> None:
    gateway.worker()
    outputs = {"A": ("t.Y", specs.ONE), "B": ("t.Y", specs.ONE), "X": ("inputs.X", specs.ONE)}
    model = gateway.model(specs.spec(outputs=outputs))
    assert model.ask({"X": column(1)}, outputs=["B"]).outputs.keys() == {"B"}
    assert model.ask({"X": column(1)}, outputs=["X", "B"]).outputs.keys() == {"B", "X"}
    assert model.ask({"X": column(1)}).outputs.keys() == {"A", "B", "X"}


def test_a_request_may_carry_a_priority_and_a_timeout(gateway: Gateway) -> None:
    worker = gateway.worker()
    specs.write_route(gateway.run_dir, specs.entry("w", batch=1))
    model = Model(triton.config(specs.spec()))
    gateway.models.append(model)
    worker.answering.clear()
    requests = model.execute({"inputs": {"X": column(0)}})
    worker.wait(1)
    for n in range(1, 5):
        requests += model.execute({"inputs": {"X": column(n)}, "parameters": {"other": 9, "jigsaw_priority": n}})
    late = model.ask({"X": column(9)}, timeout_us=20_000)
    assert "its timeout of 20 ms" in late.message
    worker.answering.set()
    for request in requests:
        request.wait()
    assert [call.inputs["X"].item() for call in worker.calls] == [0, 4, 3, 2, 1]


def test_the_clock_tensor_is_passed_from_step_to_step(gateway: Gateway) -> None:
    gateway.worker()
    model = gateway.model(specs.spec(clock=True, slo_ms=7_000))
    before = time.monotonic_ns()
    answer = model.ask({"X": column(1, 2)}, outputs=["Y", "JIGSAW_CLOCK"])
    arrival, deadline = answer["JIGSAW_CLOCK"][0].tolist()
    assert before <= arrival <= time.monotonic_ns()
    assert deadline == arrival + 7_000_000_000
    assert answer["JIGSAW_CLOCK"].tolist() == [[arrival, deadline]] * 2
    again = model.ask({"X": column(1, 2), "JIGSAW_CLOCK": answer["JIGSAW_CLOCK"]}, outputs=["Y", "JIGSAW_CLOCK"])
    assert again["JIGSAW_CLOCK"].tolist() == answer["JIGSAW_CLOCK"].tolist()
    assert model.ask({"X": column(3)})["Y"].item() == 6


@pytest.mark.parametrize(
    "clock",
    [
        np.array([[0, 0]], np.int64),
        np.array([[-1, -(1 << 62)]], np.int64),
        np.array([[(1 << 63) - 1, (1 << 63) - 1]], np.int64),
        np.array([[5]], np.int64),
        np.array([[5, 5]], np.float32),
        np.empty((0, 2), np.int64),
    ],
)
def test_a_nonsensical_clock_tensor_is_harmless(gateway: Gateway, clock: Array) -> None:
    gateway.worker()
    model = gateway.model(specs.spec(clock=True))
    assert model.ask({"X": column(1), "JIGSAW_CLOCK": clock})["Y"].item() == 2


def test_the_deadline_of_the_clock_tensor_follows_the_timeout(gateway: Gateway) -> None:
    gateway.worker()
    model = gateway.model(specs.spec(clock=True))
    answer = model.ask({"X": column(1)}, outputs=["JIGSAW_CLOCK"], timeout_us=3_000_000)
    arrival, deadline = answer["JIGSAW_CLOCK"][0].tolist()
    assert deadline == arrival + 3_000_000_000


@pytest.mark.parametrize("timeout_us", [1 << 62, (1 << 63) - 1])
def test_the_longest_timeout_does_not_overflow(gateway: Gateway, timeout_us: int) -> None:
    gateway.worker()
    model = gateway.model(specs.spec(clock=True))
    answer = model.ask({"X": column(1)}, outputs=["Y", "JIGSAW_CLOCK"], timeout_us=timeout_us)
    assert answer["Y"].item() == 2
    assert answer["JIGSAW_CLOCK"][0, 1] > answer["JIGSAW_CLOCK"][0, 0]


@pytest.mark.parametrize("where", ["input_on_gpu", "output_on_gpu"])
def test_gpu_memory_is_refused(gateway: Gateway, where: str) -> None:
    gateway.worker()
    model = gateway.model()
    answer = model.ask({"X": column(1)}, **{where: 1})
    assert answer.code in ("INVALID_ARG", "INTERNAL")
    assert "GPU memory" in answer.message
    assert model.ask({"X": column(1)})["Y"].item() == 2


@pytest.mark.parametrize("function", ["RequestInput", "InputBuffer", "ResponseOutput", "OutputBuffer"])
def test_a_failing_server_function_fails_the_request(gateway: Gateway, function: str) -> None:
    gateway.worker()
    model = gateway.model()
    triton.fail(function)
    answer = model.ask({"X": column(1)})
    assert answer.code is not None
    assert f"{function} fails" in answer.message
    triton.fail("")
    assert model.ask({"X": column(1)})["Y"].item() == 2


@pytest.mark.parametrize("function", ["RequestIsCancelled", "InferenceRequestTimeoutMicroseconds", "ResponseSend"])
def test_a_failure_of_an_optional_server_function_is_ignored(gateway: Gateway, function: str) -> None:
    gateway.worker()
    model = gateway.model()
    triton.fail(function)
    assert model.ask({"X": column(1)})["Y"].item() == 2


@pytest.mark.parametrize("function", ["RequestParameter", "RequestOutputName"])
def test_a_request_that_cannot_be_read_fails(gateway: Gateway, function: str) -> None:
    gateway.worker()
    model = gateway.model()
    triton.fail(function)
    answer = model.ask({"X": column(1)}, parameters={"jigsaw_priority": 1}, outputs=["Y"])
    assert answer.code == "INVALID_ARG"
    assert f"{function} fails" in answer.message


def test_a_request_is_released_even_if_no_response_can_be_made(gateway: Gateway) -> None:
    gateway.worker()
    model = gateway.model()
    triton.fail("ResponseNew")
    model.execute({"inputs": {"X": column(1)}})
    eventually(lambda: not triton.state()["requests"])


@pytest.mark.parametrize(
    ("api", "works"), [((1, 19), True), ((1, 25), True), ((1, 18), False), ((2, 0), False), ((0, 30), False)]
)
def test_only_a_compatible_version_of_the_backend_api_is_accepted(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, api: tuple[int, int], works: bool
) -> None:
    monkeypatch.setenv("JIGSAW_RUN_DIR", str(run_dir))
    if works:
        triton.start(api)
        return
    with pytest.raises(ServerError, match=rf"backend API {api[0]}\.{api[1]}, .* needs 1\.19 or a later minor version"):
        triton.start(api)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "JSON"),
        ('{"name": "x"}', 'config has no "parameters"'),
        ('{"name": "x", "parameters": {}}', 'config.parameters has no "spec"'),
        ('{"name": "x", "parameters": {"spec": {"string_value": "{}"}}}', 'spec has no "version"'),
    ],
)
def test_a_model_with_a_wrong_configuration_is_not_loaded(gateway: Gateway, config: str, words: str) -> None:
    with pytest.raises(ServerError, match=words):
        Model(config)


@pytest.mark.parametrize("function", ["ModelConfig", "MessageSerializeToJson"])
def test_a_model_without_a_configuration_is_not_loaded(gateway: Gateway, function: str) -> None:
    triton.fail(function)
    with pytest.raises(ServerError, match=f"{function} fails"):
        Model(triton.config(specs.spec()))


def test_a_metric_that_cannot_be_made_fails_the_load(gateway: Gateway) -> None:
    gateway.worker()
    spec = {**specs.spec(), "graph": "without metrics"}
    triton.fail("MetricNew")
    with pytest.raises(ServerError, match="MetricNew fails"):
        gateway.model(spec)
    triton.fail("")
    model = gateway.model(spec)
    assert model.ask({"X": column(1)})["Y"].item() == 2


def test_without_a_run_directory_no_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JIGSAW_RUN_DIR", raising=False)
    triton.start()
    with pytest.raises(ServerError, match="JIGSAW_RUN_DIR is not set"):
        Model(triton.config(specs.spec()))


def test_unloading_a_model_waits_for_its_requests(gateway: Gateway) -> None:
    worker = gateway.worker()
    model = gateway.model()
    worker.answering.clear()
    requests = model.execute(*({"inputs": {"X": column(3)}} for _ in range(20)))
    worker.wait(1)
    unloading = threading.Thread(target=model.unload)
    unloading.start()
    time.sleep(0.05)
    assert unloading.is_alive()
    worker.answering.set()
    unloading.join()
    assert all(request.answered(released=True) for request in requests)
    assert [request.wait()["Y"].item() for request in requests] == [6] * 20


def test_a_model_is_replaced_under_load(gateway: Gateway) -> None:
    gateway.worker()
    model = gateway.model()
    requests = []
    for _ in range(15):
        requests += model.execute(*({"inputs": {"X": column(3)}} for _ in range(8)))
        old, model = model, gateway.model()
        old.unload()
    for request in requests:
        assert request.wait()["Y"].item() == 6


def test_metrics_and_logs_go_to_the_server(gateway: Gateway) -> None:
    def broken(call: Call) -> Answer:
        raise Refuse(503, "not ready")

    worker = gateway.worker(handler=broken)
    model = gateway.model({**specs.spec(), "graph": "counted"})
    (request,) = model.execute({"inputs": {"X": column(1)}})
    worker.wait(1)
    worker.handler = double
    assert request.wait()["Y"].item() == 2
    metrics = triton.state()["metrics"]
    assert metrics["jigsaw_arrivals_total{graph=counted}"] == 1
    assert metrics["jigsaw_batches_lost_total{graph=counted,task=t}"] >= 1
    assert "warning: task t: worker w failed: not ready" in triton.state()["logs"]


def test_series_of_a_generation_are_deleted_with_it(gateway: Gateway) -> None:
    gateway.worker()
    model = gateway.model({**specs.spec(), "graph": "changing"})
    specs.write_route(gateway.run_dir, specs.entry("w", generations=[3]))
    series = "jigsaw_generation_requests_total{graph=changing,generation=3,outcome=met}"
    model.ask({"X": column(1)})
    assert triton.state()["metrics"][series] == 1
    specs.write_route(gateway.run_dir, specs.entry("w"))
    model.ask({"X": column(1)})
    assert series not in triton.state()["metrics"]


def test_a_generation_whose_metrics_cannot_be_made_leaves_the_route_as_it_was(gateway: Gateway) -> None:
    gateway.worker()
    model = gateway.model()
    triton.fail("MetricNew")
    specs.write_route(gateway.run_dir, specs.entry("gone", generations=[3]))
    assert model.ask({"X": column(1)})["Y"].item() == 2
    triton.fail("")
    assert any("its previous 1 entries stay in use" in line for line in triton.state()["logs"])


def test_many_threads_execute_concurrently(gateway: Gateway) -> None:
    gateway.worker()
    model = gateway.model()
    wrong_answers: list[object] = []

    def client(number: int) -> None:
        for n in range(30):
            requests = model.execute(*({"inputs": {"X": column(number)}, "id": f"{number}/{n}"} for _ in range(3)))
            wrong_answers.extend(request for request in requests if request.wait()["Y"].item() != 2 * number)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong_answers
    assert model.statistics[0] == 6 * 30 * 3
