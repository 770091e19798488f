"""Traces of requests through a deployment, exported to a receiver of OTLP."""

import os
import secrets
import signal
import time
from collections.abc import Iterator, Sequence
from threading import Event
from typing import Any

import numpy as np
import pytest

from tests.e2e.app import write_application
from tests.e2e.clients import PROTOCOLS, Client
from tests.e2e.system import System, free_ports
from tests.fakes.otlp import Received, Receiver
from tests.waiting import WAIT_LIMIT_S

pytestmark = pytest.mark.e2e

TARGETS = {"words": "graph", "words-ensemble": "ensemble", "words-bls": "bls"}
TASKS = ("split", "square", "total")
TREE = [(1, task) for task in TASKS] + [
    (depth, f"{word} {task}")
    for task in TASKS
    for depth, word in ((2, "queue"), (2, "call"), (3, "serve"), (4, "execute"))
]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def served(shared: System, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> System:
    folder = tmp_path_factory.mktemp("apps")
    apps = [write_application(folder / name, name=name, target=target, square_ms=2) for name, target in TARGETS.items()]
    demand = ",".join(f"{name}=5" for name in TARGETS)
    options = ("--otlp", receiver.endpoint, "--otlp-sample", "0")
    shared.deploy(*apps, "--gpus", "2xcpu", "--demand", demand, *options)
    return shared


class Trace:
    """A client's trace: its ids, and the headers that it sends."""

    def __init__(self, flags: str = "01") -> None:
        self.id, self.span = secrets.token_hex(16), secrets.token_hex(8)
        self.headers = {"traceparent": f"00-{self.id}-{self.span}-{flags}", "tracestate": "vendor=1"}

    def ask(self, client: Client, model: str, numbers: Sequence[int] = (2, 3), **more: Any) -> None:
        client.triton.infer(
            model, client._tensors({"NUMBERS": np.array([numbers], np.int64)}), headers=self.headers, **more
        )

    def spans(self, receiver: Receiver, count: int) -> list[Received]:
        """Waits for this number of spans of the trace, and returns them."""
        found = receiver.wait(
            lambda spans: sum(span.trace == self.id for span in spans) >= count, f"{count} spans of {self.id}"
        )
        return [span for span in found if span.trace == self.id]


def depths(spans: Sequence[Received], root: Received) -> list[tuple[int, str]]:
    """Depth and name of each span below the root."""
    by_id = {span.id: span for span in spans}
    assert len(by_id) == len(spans), "two spans have one id"
    found = []
    for span in spans:
        depth, at = 0, span
        while at.id != root.id:
            parent = by_id[at.parent]
            assert parent.start_ns <= at.start_ns <= at.end_ns <= parent.end_ns
            depth, at = depth + 1, parent
        if depth:
            found.append((depth, span.name))
    return sorted(found)


@pytest.fixture(scope="module")
def asked(served: System) -> dict[tuple[str, str], tuple[Trace, int, int]]:
    """A trace for each model and protocol, and when it began and ended. Those of pipelines take ten seconds."""
    found = {}
    for protocol in PROTOCOLS:
        with Client(served, protocol) as client:
            for model in TARGETS:
                trace, before_ns = Trace(), time.time_ns()
                trace.ask(client, model, request_id="seven")
                found[model, protocol] = (trace, before_ns, time.time_ns())
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", TARGETS)
def test_the_trace_of_a_client_is_continued(
    asked: dict[tuple[str, str], tuple[Trace, int, int]], receiver: Receiver, model: str, protocol: str
) -> None:
    trace, before_ns, after_ns = asked[model, protocol]
    spans = trace.spans(receiver, 1 + len(TREE))
    (root,) = (span for span in spans if span.parent == trace.span)
    assert (root.name, root.kind, root.remote, root.error) == (f"infer {model}", "SERVER", True, None)
    assert root.attributes["jigsaw.request.id"] == "seven"
    # The gateway reads one clock after the other, and may have to wait for a processor in between.
    slack_ns = 5 * 10**9
    assert before_ns - slack_ns <= root.start_ns <= root.end_ns <= after_ns + slack_ns
    assert depths(spans, root) == sorted(TREE)
    assert {span.state for span in spans} == {"vendor=1"}
    begins = {span.name: span.start_ns for span in spans}
    assert [name for name in sorted(begins, key=begins.__getitem__) if name in TASKS] == list(TASKS)
    gateway = {span.name for span in spans if span.resource["service.name"] == "jigsaw-gateway"}
    assert gateway == {root.name} | {name for depth, name in TREE if depth <= 2}
    calls = {span.id: span for span in spans if span.kind == "CLIENT"}
    for span in spans:
        if span.name.startswith("serve "):
            call = calls[span.parent]
            assert (span.kind, span.remote) == ("SERVER", True)
            assert span.resource["service.instance.id"] == call.attributes["jigsaw.worker"]
            assert call.attributes["http.request.method"] == "POST"


def test_a_client_that_does_not_record_its_trace_is_left_alone(served: System, receiver: Receiver) -> None:
    silent, loud = Trace("00"), Trace()
    with Client(served, "grpc") as client:
        silent.ask(client, "words")
        loud.ask(client, "words")
    loud.spans(receiver, 1 + len(TREE))
    assert silent.id not in {span.trace for span in receiver.spans}


def test_a_refused_request_has_an_error(served: System, receiver: Receiver) -> None:
    trace = Trace()
    with Client(served, "http") as client, pytest.raises(Exception, match="overloaded"):
        trace.ask(client, "words", list(range(2000)), timeout=1000)
    (root,) = (span for span in trace.spans(receiver, 2) if span.name == "infer words")
    assert root.error is not None
    assert "overloaded" in root.error
    assert root.attributes["error.type"] == "worker"


def test_a_killed_exporter_is_started_again(served: System, receiver: Receiver) -> None:
    pid, last = served.status()["otlp"]["pid"], served.last_event()
    os.kill(pid, signal.SIGKILL)
    served.wait_event("otlp: the process that exports traces ended with status -9", after=last)
    give_up_s = time.monotonic() + WAIT_LIMIT_S
    trace = Trace()
    with Client(served, "grpc") as client:
        while trace.id not in {span.trace for span in receiver.spans}:
            assert time.monotonic() < give_up_s
            trace.ask(client, "words")
    assert served.status()["otlp"]["pid"] != pid


def test_requests_are_served_without_a_receiver(system: System, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The receiver may be absent, come, and go; traces can be turned on, kept by an update, and turned off."""
    app = write_application(tmp_path_factory.mktemp("app") / "words", name="words", target="graph", square_ms=2)
    system.deploy(app, "--gpus", "1xcpu", "--demand", "5")
    assert system.status()["otlp"] is None
    (port,) = free_ports(1)
    endpoint = f"http://127.0.0.1:{port}"
    system.deploy(app, "--gpus", "1xcpu", "--otlp", endpoint, "--otlp-sample", "1")
    give_up_s = time.monotonic() + WAIT_LIMIT_S
    with Client(system, "http") as client:
        while not system.status()["otlp"]["error"]:
            assert time.monotonic() < give_up_s
            client.squares([1, 2])
        assert "cannot be reached" in system.status()["otlp"]["error"]
        system.deploy(app, "--gpus", "1xcpu")
        assert (system.status()["otlp"]["endpoint"], system.status()["otlp"]["sample"]) == (endpoint, 1.0)
        answering = Event()
        with Receiver(lambda _: (200 if answering.wait(WAIT_LIMIT_S) else 503, b""), port=port) as receiver:
            while not receiver.requests:
                assert time.monotonic() < give_up_s
                client.squares([2])
            # The receiver does not answer yet.
            client.squares([3])
            answering.set()
            receiver.wait(bool, "spans after the receiver has come")
        client.squares([4])
    assert f"traces: ready, 100% of the requests to {endpoint}" in system.run("status").out
    system.deploy(app, "--gpus", "1xcpu", "--otlp", "none")
    assert system.status()["otlp"] is None
    with Client(system, "http") as client:
        client.squares([4])
