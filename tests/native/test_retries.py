"""Retries: calls that fail, and the worker that runs their requests instead."""

import threading
import time
from itertools import pairwise

import pytest

from tests.native import specs
from tests.native.broken import BROKEN, hang_up
from tests.native.conftest import Bench, column, double, occupy
from tests.native.worker import Answer, Call, Handler, HangUp, Refuse, Worker
from tests.waiting import eventually


def broken_once(broken: Handler) -> Handler:
    """Handler that breaks the answer to its first call only."""
    first = iter([True])
    lock = threading.Lock()

    def handler(call: Call) -> Answer:
        with lock:
            fails = next(first, False)
        return broken(call) if fails else double(call)

    return handler


@pytest.mark.parametrize("answer", BROKEN)
def test_another_worker_runs_a_batch_whose_worker_failed(bench: Bench, answer: Handler) -> None:
    first, second = bench.worker("a", broken_once(answer)), bench.worker("b", broken_once(answer))
    bench.route("a", "b")
    front = bench.front()
    second.answering.clear()
    # The first call of each worker fails; its requests are retried on the other.
    requests = [front.send({"X": column(n, n + 1)}) for n in range(3)]
    second.answering.set()
    for n, request in enumerate(requests):
        outcome = request.wait()
        if outcome.failure is None:
            assert outcome["Y"].tolist() == [[2 * n], [2 * n + 2]]
        else:
            # The retry was the first call of the other worker.
            assert "before that, worker" in outcome.message
    assert front.ask({"X": column(7)})["Y"].tolist() == [[14]]
    assert first.calls or second.calls


@pytest.mark.parametrize("answer", BROKEN)
def test_the_only_worker_is_retried_once(bench: Bench, answer: Handler) -> None:
    worker = bench.worker("w", broken_once(answer))
    bench.route("w")
    outcome = bench.front().ask({"X": column(1, 2)})
    assert outcome["Y"].tolist() == [[2], [4]]
    assert worker.batches == [2, 2]
    assert bench.engine.metric("jigsaw_batches_lost_total") == 1
    assert bench.engine.metric("jigsaw_batches_again_total") == 1
    assert any("task t: worker w failed: " in line for line in bench.engine.logs)


@pytest.mark.parametrize("answer", BROKEN)
def test_a_request_fails_after_two_failed_calls_and_names_both_workers(bench: Bench, answer: Handler) -> None:
    workers = [bench.worker(name, answer) for name in "ab"]
    bench.route("a", "b")
    outcome = bench.front().ask({"X": column(1)})
    assert outcome.blame == "worker"
    assert outcome.message.startswith("task t: worker ")
    assert "; before that, worker " in outcome.message
    assert [len(worker.calls) for worker in workers] == [1, 1]
    assert bench.engine.metric("jigsaw_refused_total", reason="worker") == 1


def test_a_call_that_failed_on_a_host_is_repeated_on_another_one(bench: Bench) -> None:
    stopped = [bench.worker(name, hang_up) for name in ("a-0", "a-1", "a-2")]
    bench.worker("b-0")
    # The workers of the stopped host are faster, and so the first choice as long as they are usable.
    near = [specs.entry(worker.name, node="a", service_ms={"1": 1.0}) for worker in stopped]
    specs.write_route(bench.run_dir, *near, specs.entry("b-0", node="b", service_ms={"1": 1000.0}))
    assert bench.front().ask({"X": column(4)})["Y"].tolist() == [[8]]
    assert sum(len(worker.calls) for worker in stopped) == 1


def test_a_call_that_failed_on_the_only_host_is_repeated_on_another_worker_of_it(bench: Bench) -> None:
    failing = bench.worker("a-0", hang_up)
    bench.worker("a-1")
    entries = [
        specs.entry("a-0", node="a", service_ms={"1": 1.0}),
        specs.entry("a-1", node="a", service_ms={"1": 99.0}),
    ]
    specs.write_route(bench.run_dir, *entries)
    assert bench.front().ask({"X": column(4)})["Y"].tolist() == [[8]]
    assert len(failing.calls) == 1


@pytest.mark.parametrize("answer", BROKEN)
def test_a_call_that_may_have_run_is_not_retried_if_the_task_forbids_retries(bench: Bench, answer: Handler) -> None:
    workers = [bench.worker(name, answer) for name in "ab"]
    bench.route("a", "b")
    front = bench.engine.front(specs.spec([specs.task(retry=False)]))
    outcome = front.ask({"X": column(1)})
    assert outcome.blame == "worker"
    assert "; before that, worker" not in outcome.message
    assert sum(len(worker.calls) for worker in workers) == 1


def test_requests_of_a_failed_batch_are_retried_one_by_one(bench: Bench) -> None:
    """One request may have killed the worker; the others must not fail with it."""

    def poisoned(call: Call) -> Answer:
        if (call.inputs["X"] == 13).any():
            raise HangUp
        return double(call)

    worker = bench.worker("w", poisoned)
    bench.route("w", batch=8)
    front = bench.front()
    occupy(front, worker)
    requests = [front.send({"X": column(n)}) for n in (11, 12, 13, 14)]
    worker.answering.set()
    outcomes = [request.wait() for request in requests]
    assert [o["Y"].item() for o in (outcomes[0], outcomes[1], outcomes[3])] == [22, 24, 28]
    assert outcomes[2].blame == "worker"
    assert sorted(worker.batches) == [1, 1, 1, 1, 1, 4]


@pytest.mark.parametrize(("status", "blame"), [(400, "request"), (500, "model"), (413, "model")])
def test_only_the_faulty_request_of_a_batch_gets_the_error(bench: Bench, status: int, blame: str) -> None:
    def picky(call: Call) -> Answer:
        if (call.inputs["X"] == 13).any():
            raise Refuse(status, "thirteen")
        return double(call)

    worker = bench.worker("w", picky)
    bench.route("w", batch=8)
    front = bench.front()
    occupy(front, worker)
    requests = [front.send({"X": column(n, n)}) for n in (11, 12, 13)]
    worker.answering.set()
    outcomes = [request.wait() for request in requests]
    assert [o["Y"].ravel().tolist() for o in outcomes[:2]] == [[22, 22], [24, 24]]
    assert outcomes[2].blame == blame
    assert outcomes[2].message == "task t: worker w: thirteen"
    assert worker.batches == [1, 6, 2, 2, 2]
    assert bench.engine.metric("jigsaw_refused_total", reason=blame) == 1


def test_without_retries_all_requests_of_a_rejected_batch_fail(bench: Bench) -> None:
    def picky(call: Call) -> Answer:
        if (call.inputs["X"] == 13).any():
            raise Refuse(500, "thirteen")
        return double(call)

    worker = bench.worker("w", picky)
    bench.route("w", batch=8)
    front = bench.engine.front(specs.spec([specs.task(retry=False)]))
    occupy(front, worker)
    requests = [front.send({"X": column(n)}) for n in (11, 12, 13)]
    worker.answering.set()
    assert [request.wait().message for request in requests] == ["task t: worker w: thirteen"] * 3
    assert worker.batches == [1, 3]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "Request for unknown model: 'm' is not found"),
        (400, "Request for unknown model: 'm' has no available versions"),
        (503, "Server is not ready"),
        (503, "Exceeds maximum queue size"),
        (400, "Unable to find shared memory region: 'x'"),
    ],
)
@pytest.mark.parametrize("retry", [True, False])
def test_a_call_that_did_not_run_goes_to_another_worker(bench: Bench, status: int, words: str, retry: bool) -> None:
    def refuse(call: Call) -> Answer:
        raise Refuse(status, words)

    workers = {"a": bench.worker("a", refuse), "b": bench.worker("b", refuse), "c": bench.worker("c")}
    bench.route("a", "b", "c")
    front = bench.engine.front(specs.spec([specs.task(retry=retry)]))
    began = time.monotonic()
    for n in range(6):
        assert front.ask({"X": column(n)})["Y"].item() == 2 * n
    # A worker that refused gets no calls during its backoff, which lasts 100 ms or longer.
    most = 1 + (time.monotonic() - began) / 0.1
    assert all(1 <= len(workers[name].calls) <= most for name in "ab")
    assert not (bench.run_dir / "condemned").exists()


@pytest.mark.slow
def test_a_call_that_did_not_run_is_retried_until_its_deadline(bench: Bench) -> None:
    def refuse(call: Call) -> Answer:
        raise Refuse(503, "not ready")

    worker = bench.worker("w", refuse)
    bench.route("w")
    outcome = bench.front().ask({"X": column(1)}, timeout_us=500_000)
    assert outcome.blame == "worker"
    assert "none of its 1 workers can be reached; worker w failed: not ready" in outcome.message
    assert 2 <= len(worker.calls) <= 5


@pytest.mark.slow
def test_the_backoff_after_calls_that_did_not_run_stays_short(bench: Bench) -> None:
    times_s: list[float] = []

    def refuse(call: Call) -> Answer:
        times_s.append(time.monotonic())
        if len(times_s) < 7:
            raise Refuse(503, "not ready")
        return double(call)

    bench.worker("w", refuse)
    bench.route("w")
    assert bench.front().ask({"X": column(1)})["Y"].item() == 2
    # If the backoff doubled up to 2 s, the last ones would take 1.6 s and 2 s.
    assert min(later - earlier for earlier, later in pairwise(times_s[4:])) < 1


def test_an_absent_worker_fails_no_request(bench: Bench) -> None:
    worker = bench.worker("b")
    bench.route("gone", "b")
    front = bench.engine.front(specs.spec([specs.task(retry=False)]))
    for n in range(10):
        assert front.ask({"X": column(n)})["Y"].item() == 2 * n
    assert len(worker.calls) == 10
    assert any("worker gone failed: cannot connect" in line for line in bench.engine.logs)


@pytest.mark.slow
def test_requests_wait_while_the_only_worker_starts(bench: Bench) -> None:
    bench.route("w")
    request = bench.front().send({"X": column(1)})
    eventually(lambda: bench.engine.metric("jigsaw_batches_lost_total") >= 3)
    assert not request.ended(0)
    bench.worker()
    assert request.wait()["Y"].item() == 2
    # The first failure is enough for the log.
    assert sum("worker w failed: cannot connect" in line for line in bench.engine.logs) == 1


def test_a_worker_that_restarts_between_two_calls_fails_no_request(bench: Bench) -> None:
    bench.route("w")
    front = bench.engine.front(specs.spec([specs.task(retry=False)]))
    for n in range(3):
        with Worker(bench.run_dir, "w", double) as worker:
            assert front.ask({"X": column(n)})["Y"].item() == 2 * n
            assert front.ask({"X": column(n)})["Y"].item() == 2 * n
            assert worker.connections == 1
    assert bench.engine.metric("jigsaw_batches_lost_total") == 0


def test_a_worker_dies_during_a_call(bench: Bench) -> None:
    first = bench.worker("a")
    bench.route("a")
    front = bench.front()
    (request,) = occupy(front, first)
    waiting = front.send({"X": column(3)})
    bench.worker("b")
    bench.route("a", "b")
    first.kill()
    assert request.wait()["Y"].item() == -2
    assert waiting.wait()["Y"].item() == 6


def test_a_failed_worker_is_used_again_after_its_backoff(bench: Bench) -> None:
    bench.worker("a", broken_once(hang_up))
    other = bench.worker("b")
    bench.route("a", "b", batch=1)
    front = bench.front()
    deadline = time.monotonic() + 30
    while len(bench.workers[0].calls) < 3:
        # Two at a time need both workers, also if one of them is measured as faster.
        assert [request.wait()["Y"].item() for request in front.send_many(2, {"X": column(1)})] == [2, 2]
        assert time.monotonic() < deadline
    assert other.calls
