"""Servers that hang or whose model process died: they are taken out of service and reported to the controller."""

import re
import time

import pytest

from tests.native import specs
from tests.native.conftest import Bench, column, double
from tests.native.test_tokens import wrong_token
from tests.native.worker import Answer, Call, HangUp, Refuse, Worker
from tests.waiting import eventually


def test_a_worker_that_hangs_is_taken_out_of_service(bench: Bench) -> None:
    hanging, other = bench.worker("a"), bench.worker("b")
    specs.write_route(bench.run_dir, specs.entry("a", slots=2, batch=1))
    front = bench.engine.front(specs.spec([specs.task(deadline_ms=300)]))
    hanging.answering.clear()
    requests = front.send_many(2, {"X": column(5)})
    hanging.wait(2)
    bench.route("a", "b", batch=1)
    # The other worker runs all calls that were in flight; a file reports the first one to the controller.
    assert [request.wait()["Y"].item() for request in requests] == [10, 10]
    assert len(other.calls) == 2
    written = bench.condemned()["a"]
    assert written["worker"] == "a" and written["model"] == "m"
    assert "did not answer a batch of 1 within 300 ms" in written["reason"]
    assert written["identity"] == hanging.path.stat().st_mtime_ns
    assert (bench.run_dir / "condemned" / "a.json").stat().st_mode & 0o777 == 0o600
    assert any(line.startswith("error: worker a is taken out of service") for line in bench.engine.logs)
    # The condemned worker gets no more calls, although it would answer now.
    hanging.answering.set()
    for n in range(5):
        assert front.ask({"X": column(n)})["Y"].item() == 2 * n
    assert len(hanging.calls) == 2


def test_a_call_that_hangs_is_not_retried_if_the_task_forbids_retries(bench: Bench) -> None:
    hanging, other = bench.worker("a"), bench.worker("b")
    bench.route("a")
    front = bench.engine.front(specs.spec([specs.task(deadline_ms=200, retry=False)]))
    hanging.answering.clear()
    request = front.send({"X": column(5)})
    hanging.wait(1)
    bench.route("a", "b")
    outcome = request.wait()
    assert outcome.blame == "worker"
    assert "did not answer a batch of 1 within 200 ms" in outcome.message
    assert not other.calls


def test_a_request_that_is_late_because_its_worker_hung_is_refused_with_that_reason(bench: Bench) -> None:
    for name in "ab":
        bench.worker(name).answering.clear()
    bench.route("a", "b")
    front = bench.engine.front(specs.spec([specs.task(deadline_ms=200)], slo_ms=100))
    outcome = front.ask({"X": column(5)})
    assert outcome.blame == "worker"
    assert re.fullmatch(
        r"task t: worker [ab] failed on the request: the request waited for \d+ ms and cannot be answered within "
        "the latency promised",
        outcome.message,
    )
    assert bench.engine.metric("jigsaw_refused_total", reason="worker") == 1


def test_a_server_is_reported_with_its_identity_while_its_socket_is_removed(bench: Bench) -> None:
    hanging = bench.worker("a")
    bench.route("a")
    front = bench.engine.front(specs.spec([specs.task(deadline_ms=200, retry=False)]))
    hanging.answering.clear()
    request = front.send({"X": column(5)})
    hanging.wait(1)
    identity = hanging.path.stat().st_mtime_ns
    hanging.path.unlink()
    assert request.wait().blame == "worker"
    assert bench.condemned()["a"]["identity"] == identity


def test_the_server_that_replaces_a_condemned_one_is_used(bench: Bench) -> None:
    bench.route("w")
    front = bench.engine.front(specs.spec([specs.task(deadline_ms=200)]))
    with Worker(bench.run_dir, "w", double) as hanging:
        hanging.answering.clear()
        request = front.send({"X": column(5)})
        hanging.wait(1)
        eventually(lambda: bool(bench.condemned()))
        assert not request.ended()
    with Worker(bench.run_dir, "w", double) as fresh:
        assert request.wait()["Y"].item() == 10
        assert front.ask({"X": column(1)})["Y"].item() == 2
        assert len(fresh.calls) == 2


@pytest.mark.slow
def test_the_deadline_of_the_route_applies_after_the_first_answer(bench: Bench) -> None:
    """The first call of a batch size may take as long as the task allows, later ones only as long as the route says."""
    worker = bench.worker("a")
    bench.worker("b")
    bench.route("a", deadline_ms={"1": 100.0, "4": 100.0})
    front = bench.engine.front(specs.spec([specs.task(deadline_ms=60_000)]))
    worker.answering.clear()
    first = front.send({"X": column(1)})
    worker.wait(1)
    assert not first.ended(0.4)
    worker.answering.set()
    assert first.wait()["Y"].item() == 2
    worker.answering.clear()
    second = front.send({"X": column(2)})
    worker.wait(2)
    bench.route("a", "b", deadline_ms={"1": 100.0, "4": 100.0})
    assert second.wait()["Y"].item() == 4
    assert "within 100 ms" in bench.condemned()["a"]["reason"]


@pytest.mark.slow
def test_a_restarted_worker_gets_the_deadline_of_a_first_call_again(bench: Bench) -> None:
    bench.route("w", deadline_ms={"1": 100.0})
    front = bench.engine.front(specs.spec([specs.task(deadline_ms=60_000)]))
    with Worker(bench.run_dir, "w", double):
        front.ask({"X": column(1)})
    # The engine notices that the worker is gone, then that it is back.
    request = front.send({"X": column(2)})
    eventually(lambda: any("cannot connect" in line for line in bench.engine.logs))
    with Worker(bench.run_dir, "w", double) as worker:
        worker.answering.clear()
        worker.wait(1)
        assert not request.ended(0.4)
        worker.answering.set()
        assert request.wait()["Y"].item() == 4
    assert not bench.condemned()


def test_a_server_that_restarts_between_two_calls_gets_the_deadline_of_a_first_call_again(bench: Bench) -> None:
    """No call fails, so the engine only finds another socket at the address."""
    bench.route("w", deadline_ms={"1": 100.0})
    front = bench.engine.front(specs.spec([specs.task(deadline_ms=60_000)]))
    with Worker(bench.run_dir, "w", double):
        front.ask({"X": column(1)})
    # The engine looks for another socket at most once in 50 ms.
    time.sleep(0.06)
    with Worker(bench.run_dir, "w", double) as worker:
        worker.answering.clear()
        request = front.send({"X": column(2)})
        worker.wait(1)
        assert not request.ended(0.3)
        worker.answering.set()
        assert request.wait()["Y"].item() == 4
    assert not bench.condemned()


MODEL_ERROR = "Failed to process the request(s) for model instance 'm_0_0', message: "


@pytest.mark.parametrize(
    "words",
    [
        "ValueError: invalid literal for int(): 'Stub process'",
        MODEL_ERROR + "KeyError: Stub process 'm_0_0' is not healthy.",
        "KeyError: Request for unknown model: 'm'",
        "KeyError: Unable to find shared memory region: 'x'",
    ],
)
def test_a_models_message_may_quote_messages_of_the_server(bench: Bench, words: str) -> None:
    def quote(call: Call) -> Answer:
        raise Refuse(500, words)

    worker = bench.worker("w", quote)
    bench.route("w")
    outcome = bench.front().ask({"X": column(1)})
    assert (outcome.blame, outcome.message) == ("model", f"task t: worker w: {words}")
    assert not bench.condemned()
    assert len(worker.calls) == 1


@pytest.mark.parametrize(
    "words", ["Stub process 'm_0_0' is not healthy.", MODEL_ERROR + "Stub process is not healthy."]
)
def test_a_server_whose_stub_process_died_is_taken_out_of_service(bench: Bench, words: str) -> None:
    def dead(call: Call) -> Answer:
        raise Refuse(500, words)

    bench.worker("a", dead)
    bench.route("a")
    front = bench.front()
    request = front.send({"X": column(1)})
    bench.worker("b")
    bench.route("a", "b")
    assert request.wait()["Y"].item() == 2
    assert bench.condemned()["a"]["reason"] == words


def test_all_calls_in_flight_at_a_condemned_server_go_to_another(bench: Bench) -> None:
    """Calls of other models of the same server are retried, too."""
    worker, other = bench.worker("a"), bench.worker("b")
    for name in "tu":
        specs.write_route(bench.run_dir, specs.entry("a", model=name, slots=3, batch=1, tokens=1), name=name)
    fronts = [
        bench.engine.front(specs.spec([specs.task(name)], outputs={"Y": (f"{name}.Y", specs.ONE)})) for name in "tu"
    ]
    worker.answering.clear()
    requests = [front.send({"X": column(n)}) for n in range(2) for front in fronts]
    worker.wait(4)
    other.handler = lambda call: {**double(call), "JIGSAW_TOKEN": call.token()}
    for name in "tu":
        entries = [specs.entry(w, model=name, slots=3, batch=1, tokens=1) for w in "ab"]
        specs.write_route(bench.run_dir, *entries, name=name)
    worker.handler = lambda call: wrong_token(call) if call.inputs["X"].item() == 0 else never_answer(worker)
    worker.answering.set()
    outcomes = [request.wait() for request in requests]
    assert [outcome["Y"].item() for outcome in outcomes] == [0, 0, 2, 2]
    assert set(bench.condemned()) == {"a"}
    worker.kill()


def never_answer(worker: Worker) -> Answer:
    """Does not return until the worker ends."""
    while worker._listener.fileno() >= 0:
        time.sleep(0.005)
    raise HangUp
