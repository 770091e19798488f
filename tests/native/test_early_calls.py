"""Early calls: a busy worker gets its next batch shortly before it is free."""

import threading
import time

import numpy as np
import pytest

from tests.native import specs
from tests.native.conftest import Bench, column, double
from tests.native.core import Array, Front, Request
from tests.native.worker import Answer, Call, HangUp, Refuse, Worker
from tests.waiting import WAIT_LIMIT_S, eventually

BATCH = 4
SERVICE_S = 0.11
TRIES = 30
"""Tries to get an early call. None is sent if the engine does not run between 5 ms before and 20 ms after the time at
which a call should end."""


def slow(call: Call) -> Answer:
    """Handler of a model that takes its time."""
    time.sleep(SERVICE_S)
    return double(call)


def batch_seconds(bench: Bench) -> float:
    """Time that all batches have taken."""
    return bench.engine.metric("jigsaw_batch_seconds")


def warm_up(front: Front, worker: Worker) -> None:
    """Lets the engine measure the service time of a batch of one."""
    handler, worker.handler = worker.handler, slow
    front.ask({"X": column(3)})
    worker.handler = handler


def ready(bench: Bench, **more: object) -> tuple[Worker, Front]:
    """Starts a worker that has been warmed up, and a front for it. `more` are members of the task."""
    worker = bench.worker()
    bench.route("w")
    front = bench.engine.front(specs.spec([specs.task(**more)]))  # type: ignore[arg-type]
    warm_up(front, worker)
    return worker, front


def send(front: Front, count: int = BATCH) -> list[Request]:
    """Sends requests of one item."""
    return front.send_many(count, {"X": column(3)})


def check(requests: list[Request]) -> None:
    """Checks the answers to requests of one item."""
    assert all(request.wait()["Y"].item() == 6 for request in requests)


def begin(front: Front, worker: Worker, queued: int) -> tuple[list[Request], int]:
    """Sends requests while a call to the worker is held. Returns them all, and the number of calls so far."""
    calls = len(worker.calls) + 1
    worker.answering.clear()
    requests = send(front, 1)
    worker.wait(calls)
    return requests + send(front, queued), calls


def got_early(worker: Worker, calls: int) -> bool:
    """Waits for longer than an early call could take. Returns True if the worker has got one."""
    until = time.monotonic() + 2 * SERVICE_S
    while len(worker.calls) == calls and time.monotonic() < until:
        time.sleep(0.001)
    return len(worker.calls) > calls


def early_call(front: Front, worker: Worker, queued: int = BATCH) -> list[Request]:
    """Lets the worker get an early call. Neither is answered before `worker.answering` is set."""
    for _ in range(TRIES):
        requests, calls = begin(front, worker, queued)
        if got_early(worker, calls):
            return requests
        worker.answering.set()
        check(requests)
        warm_up(front, worker)
    raise AssertionError(f"the worker got no early call in {TRIES} tries")


def test_a_busy_worker_gets_one_full_batch_early(bench: Bench) -> None:
    worker, front = ready(bench)
    requests = early_call(front, worker, queued=3 * BATCH)
    assert worker.batches[-2:] == [1, BATCH]
    calls = len(worker.calls)
    # The gauge is set four times a second.
    time.sleep(0.6)
    assert len(worker.calls) == calls
    assert bench.engine.metric("jigsaw_slots_busy") == 1
    worker.answering.set()
    check(requests)
    assert worker.batches[-4:] == [1, BATCH, BATCH, BATCH]


@pytest.mark.slow
def test_an_early_call_is_sent_before_the_call_should_end(bench: Bench) -> None:
    def lead_s(name: str) -> float:
        """Returns by how much an early call was sent before the one ahead of it should end."""
        worker = bench.worker(name)
        bench.route(name)
        with bench.front() as front:
            before_s = batch_seconds(bench) if bench.workers[1:] else 0.0
            warm_up(front, worker)
            service_s = batch_seconds(bench) - before_s
            requests, calls = begin(front, worker, BATCH)
            got_early(worker, calls)
            worker.answering.set()
            sent = [request.wait().sent_ns for request in requests]
        return service_s - (sent[-1] - sent[0]) / 1e9

    # Without a timer, the engine would look every 20 ms, and no more than one in twenty would be sent at this time.
    leads_s = [lead_s(f"w{number}") for number in range(8)]
    assert sum(0.004 < lead < 0.0051 for lead in leads_s) >= 3, leads_s


def test_a_worker_with_several_slots_gets_one_early_call(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", slots=2)
    front = bench.front()
    warm_up(front, worker)
    for _ in range(TRIES):
        requests, calls = begin(front, worker, 1)
        worker.wait(calls + 1)
        requests += send(front, 3 * BATCH)
        if got_early(worker, calls + 1):
            break
        worker.answering.set()
        check(requests)
        warm_up(front, worker)
    else:
        raise AssertionError(f"the worker got no early call in {TRIES} tries")
    time.sleep(SERVICE_S)
    assert worker.batches[calls - 1 :] == [1, 1, BATCH]
    worker.answering.set()
    check(requests)


@pytest.mark.parametrize(
    ("queued", "more"),
    [
        pytest.param(BATCH - 1, {}, id="the batch could grow"),
        pytest.param(BATCH, {"retry": False}, id="the call must not be repeated"),
    ],
)
def test_no_early_call(bench: Bench, queued: int, more: dict[str, object]) -> None:
    worker, front = ready(bench, **more)
    requests, calls = begin(front, worker, queued)
    assert not got_early(worker, calls)
    worker.answering.set()
    check(requests)


def test_no_early_call_for_a_batch_of_mixed_shapes(bench: Bench) -> None:
    """There are enough rows for a full batch, but not of one shape."""
    worker = bench.worker()
    bench.route("w")
    table: specs.Type = ("INT64", (-1, -1))
    made = specs.task(inputs={"X": ("inputs.X", specs.LIST)}, outputs={"Y": specs.LIST}, mode="rows", iterated=["X"])
    front = bench.engine.front(specs.spec([made], {"X": table}, {"Y": ("t.Y", table)}))

    def rows(width: int, count: int) -> dict[str, Array]:
        return {"X": np.ones((1, count, width), np.int64)}

    worker.handler = slow
    front.ask(rows(1, 1))
    worker.handler = double
    worker.answering.clear()
    requests = [front.send(rows(1, 1))]
    worker.wait(2)
    requests += [front.send(rows(width, BATCH - 1)) for width in (1, 2)]
    assert not got_early(worker, 2)
    worker.answering.set()
    assert all((request.wait()["Y"] == 2).all() for request in requests)
    assert worker.batches == [1, 1, BATCH - 1, BATCH - 1]


def test_no_early_call_to_a_worker_that_forms_batches_itself(bench: Bench) -> None:
    """Its calls are of single items, and as many as fill its batches are in flight. An early one would run alone."""
    worker, front = ready(bench, mode="items")
    worker.answering.clear()
    requests = send(front, 2 * BATCH)
    worker.wait(1 + BATCH)
    assert not got_early(worker, 1 + BATCH)
    worker.answering.set()
    check(requests)


def test_no_early_call_after_one_that_takes_too_long(bench: Bench) -> None:
    worker, front = ready(bench)
    requests, calls = begin(front, worker, 0)
    time.sleep(2 * batch_seconds(bench))
    requests += send(front)
    assert not got_early(worker, calls)
    worker.answering.set()
    check(requests)


def test_no_early_call_after_the_first_one_of_a_batch_size(bench: Bench) -> None:
    """It may take much longer than by the profile."""
    worker = bench.worker()
    bench.route("w", service_ms={"1": 1000 * SERVICE_S})
    front = bench.front()
    requests, calls = begin(front, worker, BATCH)
    assert not got_early(worker, calls)
    worker.answering.set()
    check(requests)


def test_no_early_call_to_a_worker_that_tasks_share(bench: Bench) -> None:
    worker, front = ready(bench)
    bench.route("w", name="u")
    other = bench.engine.front(specs.spec([specs.task("u")], outputs={"Y": ("u.Y", specs.ONE)}))
    requests, calls = begin(front, worker, BATCH)
    assert not got_early(worker, calls)
    worker.answering.set()
    check(requests)
    check(send(other))


@pytest.mark.parametrize("dies", [True, False])
def test_a_worker_that_dies_or_hangs_is_not_held_against_the_requests_of_its_early_call(
    bench: Bench, dies: bool
) -> None:
    """They would fail when the next worker fails, too."""
    failed = threading.Event()

    def hang_up(call: Call) -> Answer:
        raise HangUp

    def hang_up_once(call: Call) -> Answer:
        if call.items == BATCH and not failed.is_set():
            failed.set()
            raise HangUp
        return double(call)

    worker, front = ready(bench, deadline_ms=5000 if dies else 2000)
    requests = early_call(front, worker)
    bench.worker("b", hang_up_once)
    bench.route("w", "b")
    worker.handler = hang_up
    if dies:
        worker.kill()
    check(requests)
    assert failed.is_set()
    assert bool(bench.condemned()) != dies


def test_an_early_call_that_fails_at_once_is_no_failure_of_its_worker(bench: Bench) -> None:
    """Such as one for which there is no further connection."""
    held = threading.Event()

    def handler(call: Call) -> Answer:
        if call.items == 1:
            held.wait(WAIT_LIMIT_S)
        elif not held.is_set():
            raise HangUp
        return double(call)

    worker, front = ready(bench)
    worker.handler = handler
    for _ in range(TRIES):
        calls = len(worker.calls) + 1
        requests = send(front, 1)
        worker.wait(calls)
        requests += send(front)
        if got_early(worker, calls):
            break
        held.set()
        check(requests)
        held.clear()
    else:
        raise AssertionError(f"the worker got no early call in {TRIES} tries")
    assert not got_early(worker, calls + 1)
    assert bench.engine.metric("jigsaw_batches_lost_total") == 1
    held.set()
    check(requests)
    assert worker.batches[calls:] == [BATCH, BATCH]
    # The worker gets none for a second.
    requests, calls = begin(front, worker, BATCH)
    assert not got_early(worker, calls)
    worker.answering.set()
    check(requests)


def one_by_one(worker: Worker) -> tuple[threading.Event, threading.Event]:
    """Lets a worker answer calls of one item once the first event is set, and larger ones once the second is set."""
    events = threading.Event(), threading.Event()

    def handler(call: Call) -> Answer:
        events[call.items > 1].wait(WAIT_LIMIT_S)
        return double(call)

    worker.handler = handler
    return events


@pytest.mark.slow
def test_an_early_call_has_its_deadline_from_when_it_gets_a_slot(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", deadline_ms={"1": 60_000.0, "4": 3000.0})
    front = bench.engine.front(specs.spec([specs.task(deadline_ms=3000)]))
    warm_up(front, worker)
    requests = early_call(front, worker)
    first, second = one_by_one(worker)
    worker.answering.set()
    time.sleep(2)
    first.set()
    check(requests[:1])
    time.sleep(1.5)
    assert not bench.condemned()
    eventually(lambda: bool(bench.condemned()))
    assert "did not answer a batch of 4 within 3000 ms" in bench.condemned()["w"]["reason"]
    second.set()
    with Worker(bench.run_dir, "w", double):
        check(requests[1:])


def test_the_service_time_of_an_early_call_begins_when_it_gets_a_slot(bench: Bench) -> None:
    worker, front = ready(bench)
    requests = early_call(front, worker)
    first, second = one_by_one(worker)
    worker.answering.set()
    time.sleep(1)
    first.set()
    check(requests[:1])
    before_s = batch_seconds(bench)
    second.set()
    check(requests[1:])
    assert batch_seconds(bench) - before_s < 1


@pytest.mark.parametrize("early_first", [True, False])
def test_a_call_may_be_answered_before_the_one_ahead_of_it(bench: Bench, early_first: bool) -> None:
    worker, front = ready(bench)
    requests = early_call(front, worker)
    events = one_by_one(worker)
    worker.answering.set()
    parts = [requests[:1], requests[1:]]
    for number in (1, 0) if early_first else (0, 1):
        events[number].set()
        check(parts[number])
    worker.handler = double
    # The worker gets a further early call.
    requests = early_call(front, worker)
    worker.answering.set()
    check(requests)


def test_the_requests_of_an_early_call_count_as_waiting(bench: Bench) -> None:
    """Otherwise more requests would be admitted than can be answered in time."""
    worker, front = ready(bench)
    service_s = batch_seconds(bench)
    requests = early_call(front, worker)
    # The engine expects four times the time of one item for a full batch, until it has measured one. A new request may
    # have to wait for one such batch in flight, and takes another one: 8. Its own item adds a quarter: 9. With those of
    # the early call, it is 13.
    timeout_us = int(11 * 1e6 * service_s)
    refused = front.send({"X": column(3)}, timeout_us=timeout_us)
    assert refused.ended(0.5)
    assert "overloaded" in refused.wait().message
    worker.answering.set()
    check(requests)
    check([front.send({"X": column(3)}, timeout_us=timeout_us)])


def test_an_early_call_follows_one_that_was_rejected(bench: Bench) -> None:
    def reject(call: Call) -> Answer:
        if call.items == 1:
            raise Refuse(400, "no")
        return double(call)

    worker, front = ready(bench)
    requests = early_call(front, worker)
    worker.handler = reject
    worker.answering.set()
    assert requests[0].wait().blame == "request"
    check(requests[1:])


def test_a_worker_may_leave_the_route_during_an_early_call(bench: Bench) -> None:
    worker, front = ready(bench)
    other = bench.worker("b")
    requests = early_call(front, worker, queued=2 * BATCH)
    bench.route("b")
    other.wait(1)
    worker.answering.set()
    check(requests)
    assert (worker.batches[-2:], other.batches) == ([1, BATCH], [BATCH])
