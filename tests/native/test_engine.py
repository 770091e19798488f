"""The engine as a whole: fronts that come and go, many threads, idle connections and the event loop."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.native import specs
from tests.native.broken import half_answer
from tests.native.conftest import Bench, column, double
from tests.native.worker import Answer, Call, HangUp, Refuse


def test_closing_a_front_waits_for_its_requests(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=1)
    front = bench.front()
    worker.answering.clear()
    requests = front.send_many(10, {"X": column(4)})
    worker.wait(1)
    closing = threading.Thread(target=front.close)
    closing.start()
    time.sleep(0.05)
    assert closing.is_alive()
    worker.answering.set()
    closing.join()
    assert all(request.ended() for request in requests)
    assert [request.wait()["Y"].item() for request in requests] == [8] * 10


def test_fronts_are_replaced_under_load(bench: Bench) -> None:
    """A new generation may replace one that still has requests in flight."""
    bench.worker()
    bench.route("w", batch=3, slots=2)
    front = bench.front()
    requests = []
    for turn in range(20):
        requests += [(turn, request) for request in front.send_many(20, {"X": column(turn)})]
        closing = threading.Thread(target=front.close)
        front = bench.front()
        closing.start()
        closing.join()
    for turn, request in requests:
        assert request.wait()["Y"].item() == 2 * turn


def test_many_threads_send_concurrently(bench: Bench) -> None:
    for name in "ab":
        bench.worker(name)
    bench.route("a", "b", batch=4, slots=2)
    front = bench.front()
    wrong_answers: list[object] = []

    def client(number: int) -> None:
        for n in range(40):
            value = 1000 * number + n
            found = front.ask({"X": column(value, value + 1)}, id=f"{number}/{n}")
            if found.failure or found["Y"].ravel().tolist() != [2 * value, 2 * value + 2]:
                wrong_answers.append(found)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong_answers


def test_many_threads_send_to_workers_that_fail(bench: Bench) -> None:
    """Each request gets exactly one response: the right outputs or a failure."""
    rng = np.random.default_rng(3)
    lock = threading.Lock()

    def shaky(call: Call) -> Answer:
        with lock:
            luck = rng.random()
        if luck < 0.05:
            raise HangUp
        if luck < 0.1:
            return half_answer(call)
        if luck < 0.15:
            raise Refuse(500, "bad luck")
        if luck < 0.2:
            raise Refuse(503, "not now")
        return double(call)

    for name in "abc":
        bench.worker(name, shaky)
    bench.route("a", "b", "c", batch=4, slots=2)
    front = bench.front()
    answered: list[bool] = []

    def client(number: int) -> None:
        for n in range(25):
            value = 1000 * number + n
            outcome = front.ask({"X": column(value, value + 1)})
            if outcome.failure is None:
                assert outcome["Y"].ravel().tolist() == [2 * value, 2 * value + 2]
            answered.append(outcome.failure is None)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answered) == 200
    assert sum(answered) > 100


def test_an_engine_closes_with_idle_connections(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", slots=4, batch=1)
    front = bench.front()
    for request in front.send_many(20, {"X": column(1)}):
        request.wait()
    # One for each slot, and one for an early call.
    assert 1 <= worker.connections <= 5


def context_switches() -> int:
    """Counts the voluntary context switches of all event loops of this process, idle ones of other tests included."""
    loops = [path.parent for path in Path("/proc/self/task").glob("*/comm") if path.read_text() == "jigsaw\n"]
    assert loops
    words = [(loop / "status").read_text().split() for loop in loops]
    return sum(int(found[found.index("voluntary_ctxt_switches:") + 1]) for found in words)


@pytest.mark.slow
def test_deadlines_of_answered_calls_do_not_wake_the_event_loop(bench: Bench) -> None:
    bench.worker()
    bench.route("w")
    front = bench.engine.front(specs.spec([specs.task(deadline_ms=500)]))
    for _ in range(100):
        front.ask({"X": column(5)})
        time.sleep(0.002)
    before = context_switches()
    time.sleep(0.7)
    assert context_switches() - before < 40
