"""Batch delay: how long a batch waits for more requests while a worker is free."""

import threading
import time

import numpy as np
import pytest

from tests.native import specs
from tests.native.conftest import Bench, column
from tests.native.core import Array, Front
from tests.native.parts import NEVER, BatchDelay
from tests.native.worker import Call, Refuse, Worker
from tests.waiting import WAIT_LIMIT_S

GAP = 200
"""Longest time between two requests of a burst, in microseconds."""

TRIES = 100
"""Tries of something that fails if a thread has to wait for a processor for longer than TRANSIT."""

TRANSIT = 500
"""Time within which announced requests arrive, in microseconds."""


def bursts(delay: BatchDelay, count: int, *, after: int, start: int = 0) -> int:
    """Lets a request follow each of some batches after this time. Returns the time of the end."""
    for number in range(count):
        at = start + 10_000 * number
        delay.waits(at, longest=0)
        delay.arrived(at + after)
    return start + 10_000 * count


def test_a_batch_does_not_wait_at_first() -> None:
    delay = BatchDelay()
    assert not delay.waits(0, longest=1000)
    assert delay.end() is None


def test_a_batch_waits_for_expected_results_up_to_its_limit() -> None:
    delay = BatchDelay()
    assert delay.waits(0, longest=1000, results=999)
    assert delay.end() == 1000
    assert delay.waits(500, longest=1000, results=999)
    assert not delay.waits(1000, longest=1000, results=1001)
    assert delay.end() is None


def test_a_batch_does_not_wait_beyond_its_latest_time() -> None:
    delay = BatchDelay()
    assert delay.waits(0, longest=1000, latest=600, results=599)
    assert delay.end() == 600
    assert not delay.waits(0, longest=1000, latest=500, results=599)
    assert not delay.waits(700, longest=1000, latest=600, results=599)


@pytest.mark.parametrize("results", [1000, 2000, NEVER])
def test_a_batch_does_not_wait_for_results_after_its_limit(results: int) -> None:
    assert not BatchDelay().waits(0, longest=1000, results=results)


def test_a_batch_that_was_sent_has_not_used_the_time_of_the_next_one() -> None:
    delay = BatchDelay()
    assert delay.waits(0, longest=1000, results=900)
    delay.reset()
    assert delay.end() is None
    assert delay.waits(990, longest=1000, results=1500)
    assert delay.end() == 1990


def test_a_batch_waits_for_bursts_of_clients_once_they_are_usual() -> None:
    delay = BatchDelay()
    at = bursts(delay, 3, after=GAP - 1)
    assert not delay.waits(at, longest=1000)
    at = bursts(delay, 1, after=GAP - 1, start=at)
    assert delay.waits(at, longest=1000)
    assert delay.end() == at + GAP
    # Each request of the burst extends the wait, up to the limit.
    delay.arrived(at + 150)
    assert delay.waits(at + 150, longest=500)
    assert delay.end() == at + 150 + GAP
    delay.arrived(at + 340)
    assert delay.waits(at + 340, longest=500)
    assert delay.end() == at + 500
    assert not delay.waits(at + 500, longest=500)


def test_a_batch_ends_its_wait_once_a_burst_is_over() -> None:
    delay = BatchDelay()
    at = bursts(delay, 10, after=50)
    assert delay.waits(at, longest=1000)
    assert not delay.waits(at + GAP, longest=1000)


def test_requests_that_come_apart_end_the_wait_for_bursts() -> None:
    delay = BatchDelay()
    at = bursts(delay, 10, after=50)
    at = bursts(delay, 20, after=GAP, start=at)
    assert not delay.waits(at, longest=1000)


def test_requests_that_come_after_the_batch_has_ended_are_no_burst() -> None:
    """Such as those of a single client of a fast model."""
    delay = BatchDelay()
    for number in range(100):
        assert not delay.waits(100 * number, longest=1000)
        delay.call_ended()
        delay.arrived(100 * number + 90)


def test_announced_requests_are_no_burst() -> None:
    delay = BatchDelay()
    for number in range(100):
        at = 1000 * number
        delay.announce(2, at)
        delay.arrived(at + 1)
        assert delay.waits(at + 1, longest=1000)
        delay.arrived(at + 2)
        assert not delay.waits(at + 2, longest=1000)
        delay.call_ended()


def test_a_batch_waits_for_announced_requests_until_all_have_arrived() -> None:
    delay = BatchDelay()
    delay.announce(2, at=0)
    assert delay.waits(10, longest=1000, results=NEVER)
    delay.arrived(20)
    assert delay.waits(20, longest=1000, results=NEVER)
    delay.arrived(30)
    assert not delay.waits(30, longest=1000, results=NEVER)


def test_announced_requests_that_do_not_arrive_are_forgotten() -> None:
    delay = BatchDelay()
    delay.announce(5, at=0)
    assert delay.waits(10, longest=1000, results=NEVER)
    assert delay.end() == TRANSIT
    assert not delay.waits(TRANSIT, longest=1000, results=NEVER)
    delay.announce(1, at=2 * TRANSIT)
    delay.arrived(2 * TRANSIT + 1)
    assert not delay.waits(2 * TRANSIT + 1, longest=1000, results=NEVER)


class Gate:
    """Handler of a model that doubles each input once that input is released."""

    def __init__(self) -> None:
        self._released: set[int] = set()
        self._changed = threading.Condition()

    def release(self, *values: int) -> None:
        with self._changed:
            self._released |= set(values)
            self._changed.notify_all()

    def __call__(self, call: Call) -> dict[str, Array]:
        values = set(call.inputs["X"].ravel().tolist())
        with self._changed:
            assert self._changed.wait_for(lambda: values <= self._released, WAIT_LIMIT_S)
        return {"Y": 2 * call.inputs["X"]}


def sizes(worker: Worker) -> list[int]:
    """Numbers of items in the calls that have arrived."""
    return [len(call.inputs["X"]) for call in worker.calls]


def pipeline(bench: Bench, target: str, *, first_ms: float, second_ms: float) -> tuple[Gate, Worker, list[Front]]:
    """Makes task `a`, whose worker answers inputs when they are released, and its follower `b`."""
    gate = Gate()
    bench.worker("a", gate)
    second = bench.worker("b")
    bench.route("a", name="a", batch=1, slots=3, service_ms={"1": first_ms})
    bench.route("b", name="b", batch=2, service_ms={"1": second_ms, "2": second_ms})
    if target == "graph":
        tasks = [specs.task("a"), specs.task("b", {"X": ("a.Y", specs.ONE)})]
        return gate, second, [bench.engine.front(specs.spec(tasks, outputs={"Y": ("b.Y", specs.ONE)}))]
    tasks = [specs.task("a", followers=["b"], entry=True), specs.task("b")]
    fronts = [
        bench.engine.front(specs.spec([task], outputs={"Y": (f"{task['name']}.Y", specs.ONE)}, clock=True))
        for task in tasks
    ]
    return gate, second, fronts


def test_a_batch_waits_for_the_call_of_the_task_before_that_is_about_to_end(bench: Bench) -> None:
    gate, second, (front,) = pipeline(bench, "graph", first_ms=100.0, second_ms=10_000.0)
    requests = [front.send({"X": column(value)}) for value in (1, 2)]
    gate.release(1)
    time.sleep(0.2)
    assert sizes(second) == []
    gate.release(2)
    assert [request.wait()["Y"].item() for request in requests] == [4, 8]
    assert sizes(second) == [2]


def test_a_batch_waits_for_the_call_of_the_step_before_that_is_about_to_end(bench: Bench) -> None:
    """As in an ensemble, whose steps are fronts of their own."""
    gate, second, (first, last) = pipeline(bench, "ensemble", first_ms=100.0, second_ms=10_000.0)
    requests = [first.send({"X": column(value)}) for value in (1, 2, 3)]
    gate.release(1)
    assert requests[0].wait()["Y"].item() == 2
    follows = [last.send({"X": column(2)})]
    time.sleep(0.2)
    assert sizes(second) == []
    # The third call may still end.
    gate.release(2)
    assert requests[1].wait()["Y"].item() == 4
    follows.append(last.send({"X": column(4)}))
    assert [request.wait()["Y"].item() for request in follows] == [4, 8]
    assert sizes(second) == [2]
    gate.release(3)
    assert requests[2].wait()["Y"].item() == 6


def test_a_batch_waits_for_all_requests_that_a_batch_of_the_step_before_answered(bench: Bench) -> None:
    gate, second, (first, last) = pipeline(bench, "ensemble", first_ms=10.0, second_ms=10.0)
    gate.release(1)
    bench.route("a", name="a", batch=2, service_ms={"1": 10.0, "2": 10.0})

    def sent_together() -> bool:
        """Passes two answers on, as the server does."""
        before = len(second.calls)
        answered = first.send_many(2, {"X": column(1)})
        assert all(request.ended(WAIT_LIMIT_S) for request in answered)
        follows = last.send_many(2, {"X": column(2)})
        for request in answered + follows:
            request.wait()
        return sizes(second)[before:] == [2]

    assert any(sent_together() for _ in range(TRIES))


@pytest.mark.parametrize("first_ms", [100.0, 60_000.0])
def test_a_batch_is_sent_if_the_call_of_the_task_before_does_not_end_in_time(bench: Bench, first_ms: float) -> None:
    gate, second, (front,) = pipeline(bench, "graph", first_ms=first_ms, second_ms=500.0)
    requests = [front.send({"X": column(value)}) for value in (1, 2)]
    gate.release(1)
    assert requests[0].wait()["Y"].item() == 4
    gate.release(2)
    assert requests[1].wait()["Y"].item() == 8
    assert sizes(second) == [1, 1]


def test_a_batch_does_not_wait_if_another_slot_is_free(bench: Bench) -> None:
    gate, second, (front,) = pipeline(bench, "graph", first_ms=100.0, second_ms=20_000.0)
    bench.route("b", name="b", batch=2, slots=2, service_ms={"1": 20_000.0, "2": 20_000.0})
    requests = [front.send({"X": column(value)}) for value in (1, 2)]
    gate.release(1)
    # It would wait for five seconds.
    assert requests[0].wait(within_s=3.0)["Y"].item() == 4
    gate.release(2)
    assert requests[1].wait()["Y"].item() == 8
    assert sizes(second) == [1, 1]


def test_a_batch_does_not_wait_if_its_requests_would_be_late(bench: Bench) -> None:
    gate, second, (front,) = pipeline(bench, "graph", first_ms=100.0, second_ms=1000.0)
    requests = [front.send({"X": column(value)}, timeout_us=1_400_000) for value in (1, 2)]
    gate.release(1)
    assert requests[0].wait()["Y"].item() == 4
    gate.release(2)
    requests[1].wait()
    assert sizes(second)[0] == 1


def test_a_batch_is_sent_once_the_call_of_the_task_before_has_failed(bench: Bench) -> None:
    gate = threading.Event()

    def fail(call: Call) -> dict[str, Array]:
        if call.inputs["X"].item() == 2:
            assert gate.wait(WAIT_LIMIT_S)
            raise Refuse(500, "broken")
        return {"Y": 2 * call.inputs["X"]}

    bench.worker("a", fail)
    second = bench.worker("b")
    bench.route("a", name="a", batch=1, slots=2, service_ms={"1": 100.0})
    bench.route("b", name="b", batch=2, service_ms={"1": 10_000.0, "2": 10_000.0})
    tasks = [specs.task("a"), specs.task("b", {"X": ("a.Y", specs.ONE)})]
    front = bench.engine.front(specs.spec(tasks, outputs={"Y": ("b.Y", specs.ONE)}))
    requests = [front.send({"X": column(value)}) for value in (1, 2)]
    time.sleep(0.2)
    assert sizes(second) == []
    gate.set()
    assert requests[1].wait().blame == "model"
    # It would wait for five seconds.
    assert requests[0].wait(within_s=3.0)["Y"].item() == 4


def test_a_batch_does_not_wait_if_another_task_wants_the_worker(bench: Bench) -> None:
    gate, second, (front,) = pipeline(bench, "graph", first_ms=100.0, second_ms=10_000.0)
    bench.route("b", name="c", batch=2, service_ms={"1": 10_000.0, "2": 10_000.0})
    other = bench.engine.front(specs.spec([specs.task("c")], outputs={"Y": ("c.Y", specs.ONE)}))
    requests = [front.send({"X": column(value)}) for value in (1, 2)]
    second.answering.clear()
    requests += other.send_many(2, {"X": column(1)})
    second.wait(1)
    requests += other.send_many(2, {"X": column(1)})
    gate.release(1)
    time.sleep(0.1)
    second.answering.set()
    assert requests[0].wait(within_s=3.0)["Y"].item() == 4
    gate.release(2)
    for request in requests[1:]:
        request.wait()


def test_a_first_task_waits_for_bursts_of_clients(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=8, service_ms={"1": 50.0, "8": 50.0})
    front = bench.front()

    def sent_together() -> bool:
        before = len(worker.calls)
        for request in front.send_many(4, {"X": column(1)}):
            request.wait()
        return sizes(worker)[before:] == [4]

    assert not sent_together()
    assert any(sent_together() for _ in range(TRIES))


def test_the_items_of_a_request_share_the_first_batch(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=8, service_ms={"1": 50.0, "8": 50.0})
    front = bench.front(split=True)

    def sent_together() -> bool:
        before = len(worker.calls)
        assert np.array_equal(front.ask({"X": column(1, 2, 3, 4)})["Y"], column(2, 4, 6, 8))
        return sizes(worker)[before:] == [4]

    assert any(sent_together() for _ in range(TRIES))
