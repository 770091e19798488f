"""Batches on their way over real sockets and real slots to workers that fail in every way they can."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.runtime.batches import Batch, Failure
from jigsaw_triton.runtime.counters import Counters
from jigsaw_triton.runtime.delivery import Delivery
from jigsaw_triton.runtime.dtypes import Array
from jigsaw_triton.runtime.patience import MOST_BYTES
from jigsaw_triton.runtime.route import Route
from jigsaw_triton.runtime.slots import SlotFile
from jigsaw_triton.runtime.spec import DispatcherSpec, Mode, TensorSpec
from jigsaw_triton.runtime.trips import Trip
from tests.runtime.fake_worker import Call, FakeWorker, Handler, HangUp, Refuse
from tests.runtime.test_route import write
from tests.runtime.test_slots import holder

X = (TensorSpec("X", "INT64", (1,)),)
Y = (TensorSpec("Y", "INT64", (1,)),)

TOO_MANY = 2 * MOST_BYTES // 16
"""Of requests of two items."""


def double(call: Call) -> dict[str, Array]:
    return {"Y": 2 * call.inputs["X"]}


def requests(*counts: int) -> list[dict[str, Array]]:
    return [{"X": 100 * i + np.arange(count).reshape(count, 1)} for i, count in enumerate(counts)]


def values(batch: Batch) -> list[list[int] | Failure]:
    return [r if isinstance(r, Failure) else r["Y"].ravel().tolist() for r in batch.results()]


class Bench:
    """A run directory, fake workers, and a delivery whose clock moves only when it sleeps."""

    def __init__(self, run_dir: Path, stack: ExitStack) -> None:
        self.run_dir = run_dir
        self.stack = stack
        self.logged: list[str] = []
        self.now = 0.0
        self.waiting = 0
        self.slept: Callable[[], None] = lambda: None
        (run_dir / "routes").mkdir()

    def worker(self, name: str, handler: Handler = double) -> FakeWorker:
        return self.stack.enter_context(FakeWorker(self.run_dir / "workers" / f"{name}.sock", handler))

    def route(self, *workers: str, batch: int = 4, slots: int = 1) -> None:
        entries = [{"worker": name, "model": "m", "batch": batch, "slots": slots} for name in workers]
        write(self.run_dir / "routes" / "d.json", *entries)

    def delivery(
        self,
        mode: Mode = "stack",
        call_timeout_ms: int = 5000,
        usual_timeout_ms: int | None = None,
        slack_ms: float = 30_000.0,
        slo_ms: float = 30_000.0,
    ) -> Delivery:
        spec = DispatcherSpec(
            "g",
            "t",
            mode,
            X,
            Y,
            call_timeout_ms=call_timeout_ms,
            usual_timeout_ms=usual_timeout_ms or call_timeout_ms,
            wait_timeout_ms=10_000,
            slack_ms=slack_ms,
            slo_ms=slo_ms,
        )
        route = Route(self.run_dir / "routes" / "d.json", self.logged.append)
        counters = Counters(self.run_dir / "counters", 0)
        delivery = Delivery(
            spec,
            route,
            self.run_dir,
            counters,
            self.logged.append,
            lambda: self.waiting,
            lambda: self.now,
            self.sleep,
        )
        self.stack.callback(delivery.close)
        return delivery

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept()

    def send(self, delivery: Delivery, *counts: int, mode: Mode = "stack") -> Batch:
        batch = Batch(DispatcherSpec("g", "t", mode, X, Y), requests(*counts))
        delivery.run(batch)
        return batch

    def slot(self, worker: str) -> SlotFile:
        file = SlotFile(self.run_dir / "slots" / worker / "m")
        self.stack.callback(file.close)
        return file


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(tmp_path, stack)


def test_requests_travel_in_one_call_on_one_connection(bench: Bench) -> None:
    worker = bench.worker("a")
    bench.route("a")
    delivery = bench.delivery()
    for _ in range(3):
        assert values(bench.send(delivery, 1, 2, 1)) == [[0], [200, 202], [400]]
    assert [len(call.inputs["X"]) for call in worker.calls] == [4, 4, 4]
    assert worker.connections == 1


def test_a_batch_is_cut_and_goes_to_all_workers_side_by_side(bench: Bench) -> None:
    meeting = threading.Barrier(3, timeout=5)

    def meet(call: Call) -> dict[str, Array]:
        meeting.wait()
        return double(call)

    workers = [bench.worker(name, meet) for name in "abc"]
    bench.route("a", "b", "c")
    batch = bench.send(bench.delivery(), 5, 7)
    assert values(batch) == [[0, 2, 4, 6, 8], [200, 202, 204, 206, 208, 210, 212]]
    assert [[len(call.inputs["X"]) for call in worker.calls] for worker in workers] == [[4], [4], [4]]


def test_parts_beyond_the_free_slots_follow_as_slots_become_free(bench: Bench) -> None:
    workers = [bench.worker(name) for name in "ab"]
    bench.route("a", "b")
    assert values(bench.send(bench.delivery(), 30)) == [[2 * i for i in range(30)]]
    assert sum(len(worker.calls) for worker in workers) == 8


def test_items_are_calls_of_their_own_as_many_as_a_batch_at_a_time(bench: Bench) -> None:
    lock = threading.Lock()
    now, most = 0, 0

    def count(call: Call) -> dict[str, Array]:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.001)
        with lock:
            now -= 1
        return double(call)

    worker = bench.worker("a", count)
    bench.route("a", batch=3)
    batch = bench.send(bench.delivery("items"), 1, 4, 2, mode="items")
    assert values(batch) == [[0], [200, 202, 204, 206], [400, 402]]
    assert [call.inputs["X"].shape for call in worker.calls] == [(1, 1)] * 7
    assert worker.connections == 3
    assert 1 <= most <= 3


def test_a_worker_that_dies_under_way_has_its_batch_done_by_another(bench: Bench) -> None:
    def die(call: Call) -> dict[str, Array]:
        raise HangUp

    dying, other = bench.worker("a", die), bench.worker("b")
    bench.route("a", "b")
    delivery = bench.delivery()
    for _ in range(2):
        assert values(bench.send(delivery, 1, 2)) == [[0], [200, 202]]
    assert len(dying.calls) == 1
    assert len(other.calls) == 2
    assert bench.logged == ["task t: worker a failed: connection closed"]


def test_after_two_failures_the_requests_of_the_part_fail_and_say_why(bench: Bench) -> None:
    def die(call: Call) -> dict[str, Array]:
        if 100 in call.inputs["X"]:
            raise HangUp
        return double(call)

    bench.worker("a", die)
    bench.worker("b", die)
    bench.route("a", "b")
    good, bad = values(bench.send(bench.delivery(), 4, 4))
    assert good == [0, 2, 4, 6]
    assert isinstance(bad, Failure)
    assert bad.blame == "worker"
    messages = [f"task t: worker {two} failed: connection closed; before it worker {one}" for one, two in ("ab", "ba")]
    assert bad.message in messages


def test_a_worker_that_is_late_is_taken_for_failed(bench: Bench) -> None:
    released = threading.Event()

    def hang(call: Call) -> dict[str, Array]:
        released.wait(5)
        return double(call)

    bench.worker("a", hang)
    bench.worker("b")
    bench.route("a", "b")
    delivery = bench.delivery(call_timeout_ms=20)
    for _ in range(2):
        assert values(bench.send(delivery, 1)) == [[0]]
    assert bench.logged == ["task t: worker a failed: no answer in time"]
    released.set()


def test_a_worker_that_has_answered_before_is_late_sooner(bench: Bench) -> None:
    worker = bench.worker("a")
    bench.route("a")
    delivery = bench.delivery(call_timeout_ms=3_600_000, usual_timeout_ms=20)
    assert values(bench.send(delivery, 1)) == [[0]]
    worker.going.clear()
    (failure,) = values(bench.send(delivery, 1))
    assert isinstance(failure, Failure)
    assert failure.message == "task t: worker a failed: no answer in time; before it worker a"


@pytest.mark.parametrize("between", [True, False])
def test_a_worker_that_started_again_has_all_the_time_it_had_at_first(bench: Bench, between: bool) -> None:
    def slow(call: Call) -> dict[str, Array]:
        time.sleep(0.1)
        return double(call)

    first = bench.worker("a", slow)
    bench.route("a")
    delivery = bench.delivery(usual_timeout_ms=20)
    assert values(bench.send(delivery, 1)) == [[0]]
    first.kill()

    def restart() -> None:
        bench.slept = lambda: None
        bench.worker("a", slow)

    if between:
        restart()
    else:
        bench.slept = restart
    assert values(bench.send(delivery, 1)) == [[0]]


def test_a_failed_worker_is_tried_again_after_a_pause(bench: Bench) -> None:
    healthy = False

    def flap(call: Call) -> dict[str, Array]:
        if not healthy:
            raise HangUp
        return double(call)

    flapping, other = bench.worker("a", flap), bench.worker("b")
    bench.route("a", "b")
    delivery = bench.delivery()
    while not flapping.calls:
        bench.send(delivery, 1)
    for _ in range(4):
        bench.send(delivery, 1)
    assert len(flapping.calls) == 1
    bench.now, healthy = 0.21, True
    before = len(other.calls)
    for _ in range(4):
        bench.send(delivery, 1)
    assert len(flapping.calls) == 3
    assert len(other.calls) == before + 2


def test_the_only_worker_is_waited_for_while_it_restarts(bench: Bench) -> None:
    bench.route("a")

    def restart() -> None:
        if bench.now > 3:
            bench.slept = lambda: None
            bench.worker("a")

    bench.slept = restart
    assert values(bench.send(bench.delivery(), 2)) == [[0, 2]]
    assert 3 < bench.now < 3 + 2.1


def test_a_worker_that_restarts_in_the_middle_is_asked_once_more(bench: Bench) -> None:
    first = bench.worker("a")

    def die(call: Call) -> dict[str, Array]:
        first.kill()
        raise HangUp

    first.handler = die
    bench.route("a")

    def restart() -> None:
        bench.slept = lambda: None
        bench.worker("a")

    bench.slept = restart
    assert values(bench.send(bench.delivery(), 2)) == [[0, 2]]


def test_a_worker_that_restarted_between_two_batches_is_no_failure(bench: Bench) -> None:
    bench.route("a")
    delivery = bench.delivery()
    for _ in range(2):
        with FakeWorker(bench.run_dir / "workers" / "a.sock", double):
            assert values(bench.send(delivery, 2)) == [[0, 2]]
    assert bench.logged == []


@pytest.mark.parametrize("workers", [(), ("a",)])
def test_without_any_worker_the_requests_fail_when_the_wait_is_over(bench: Bench, workers: tuple[str, ...]) -> None:
    bench.route(*workers)
    (failure,) = values(bench.send(bench.delivery(), 2))
    assert isinstance(failure, Failure)
    assert failure.blame == "worker"
    assert failure.message.startswith(f"task t: none of its {len(workers)} workers had room within 10 s")
    if workers:
        assert "worker a failed: cannot connect to unix:" in failure.message
    assert 10 <= bench.now < 10.1


@pytest.mark.parametrize(("waiting", "waits_s"), [(TOO_MANY, 2.0), (TOO_MANY // 2, 10.0)])
def test_without_any_worker_those_behind_are_not_let_fill_memory(bench: Bench, waiting: int, waits_s: float) -> None:
    bench.route("a")
    bench.waiting = waiting
    (failure,) = values(bench.send(bench.delivery(slack_ms=2000.0), 2))
    assert isinstance(failure, Failure)
    assert failure.blame == "worker"
    assert ("requests of about 512 MiB wait behind it; worker a failed" in failure.message) is (waits_s == 2.0)
    assert waits_s <= bench.now < waits_s + 0.1


def test_a_worker_that_hangs_is_not_waited_for_while_memory_fills(bench: Bench) -> None:
    def hang(call: Call) -> dict[str, Array]:
        bench.now += 1
        released.wait(5)
        return double(call)

    released = threading.Event()
    worker, other = bench.worker("a", hang), bench.worker("b")
    bench.route("a")
    bench.waiting = TOO_MANY
    delivery = bench.delivery(call_timeout_ms=3_600_000, slo_ms=20)
    (trip,) = delivery.run(batch := Batch(DispatcherSpec("g", "t", "stack", X, Y), requests(2)))
    (failure,) = values(batch)
    assert isinstance(failure, Failure)
    assert failure.blame == "worker"
    assert failure.message.startswith("task t: no worker did it within 1.0 s, and requests of about 512 MiB wait")
    assert failure.message.endswith("; worker a failed: no answer in time")
    assert trip.outcome == "failed"
    bench.route("a", "b")
    assert values(bench.send(delivery, 1)) == [[0]]
    assert (len(worker.calls), len(other.calls)) == (1, 1)
    released.set()
    bench.now += 1
    bench.route("a")
    assert values(bench.send(delivery, 1)) == [[0]]


def test_a_model_that_is_not_there_is_another_workers_work(bench: Bench) -> None:
    def unloaded(call: Call) -> dict[str, Array]:
        raise Refuse(404, "Request for unknown model: 'm' is not found")

    without, other = bench.worker("a", unloaded), bench.worker("b")
    bench.route("a", "b")
    delivery = bench.delivery()
    for _ in range(4):
        assert values(bench.send(delivery, 1)) == [[0]]
    assert len(without.calls) == 1
    assert len(other.calls) == 4


def test_slots_taken_by_others_are_waited_for(bench: Bench) -> None:
    bench.worker("a")
    bench.route("a")
    with holder(bench.run_dir / "slots" / "a" / "m", [0]) as (pipe, _, _pid):

        def free() -> None:
            if bench.now > 1:
                bench.slept = lambda: None
                pipe.send(None)
                pipe.send([0])
                pipe.recv()

        bench.slept = free
        assert values(bench.send(bench.delivery(), 1)) == [[0]]
        assert 1 < bench.now < 1.1


def test_only_the_faulty_request_of_a_batch_gets_the_error(bench: Bench) -> None:
    def picky(call: Call) -> dict[str, Array]:
        if 100 in call.inputs["X"]:
            raise Refuse(400, "bad value")
        return double(call)

    worker = bench.worker("a", picky)
    bench.route("a")
    batch = bench.send(bench.delivery(), 1, 1, 1)
    assert values(batch) == [[0], Failure("task t: worker a: bad value", "request"), [400]]
    assert [len(call.inputs["X"]) for call in worker.calls] == [3, 1, 1, 1]
    assert worker.connections == 1
    assert bench.logged == []


def test_a_model_that_fails_is_named_with_its_words(bench: Bench) -> None:
    def broken(call: Call) -> dict[str, Array]:
        raise Refuse(500, "CUDA out of memory")

    bench.worker("a", broken)
    bench.route("a")
    assert values(bench.send(bench.delivery(), 1)) == [Failure("task t: worker a: CUDA out of memory", "model")]


def test_outputs_that_are_not_the_tasks_are_an_error(bench: Bench) -> None:
    bench.worker("a", lambda call: {"Y": np.zeros((1, 3))})
    bench.route("a")
    (failure,) = values(bench.send(bench.delivery(), 1))
    assert failure == Failure("task t: worker a: output Y is of type float64 where INT64 was declared", "model")


def test_a_route_that_changes_is_followed(bench: Bench) -> None:
    a, b = bench.worker("a"), bench.worker("b")
    bench.route("a")
    delivery = bench.delivery()
    bench.send(delivery, 1)
    bench.route("b")
    bench.send(delivery, 1)
    assert (len(a.calls), len(b.calls)) == (1, 1)


def test_slots_are_free_afterwards_whatever_happened(bench: Bench) -> None:
    def chaos(call: Call) -> dict[str, Array]:
        first = int(call.inputs["X"][0, 0])
        if first == 0:
            raise HangUp
        if first == 100:
            raise Refuse(500, "no")
        return double(call)

    bench.worker("a", chaos)
    bench.worker("b", chaos)
    bench.route("a", "b", batch=2)
    delivery = bench.delivery()
    bench.send(delivery, 2, 2, 2)
    delivery.close()
    assert bench.slot("a").take(0)
    assert bench.slot("b").take(0)


def test_shares_are_kept_while_all_have_room(bench: Bench) -> None:
    count = {"a": 0, "b": 0}

    def counting(name: str) -> Handler:
        def handle(call: Call) -> dict[str, Array]:
            count[name] += len(call.inputs["X"])
            return double(call)

        return handle

    for name in count:
        bench.worker(name, counting(name))
    entries = [
        {"worker": name, "model": "m", "batch": 4, "slots": 2, "variant": name, "share": share}
        for name, share in (("a", 0.8), ("b", 0.2))
    ]
    write(bench.run_dir / "routes" / "d.json", *entries)
    delivery = bench.delivery()
    for _ in range(100):
        bench.send(delivery, 1, 1)
    assert abs(count["a"] - 160) <= 4


def test_what_was_sent_is_told_with_its_end(bench: Bench) -> None:
    def slow(call: Call) -> dict[str, Array]:
        bench.now += 0.5
        return double(call)

    worker = bench.worker("a", slow)
    bench.route("a", batch=2)
    delivery = bench.delivery()
    batch = Batch(DispatcherSpec("g", "t", "stack", X, Y), requests(1, 2))
    first, last = delivery.run(batch, "7,8")
    assert (first.sent_s, first.ended_s, last.sent_s, last.ended_s) == (0.0, 0.5, 0.5, 1.0)
    assert (first.part.shares(), last.part.shares()) == ({0: 1, 1: 1}, {1: 1})
    assert [(trip.outcome, trip.entry.worker, trip.number) for trip in (first, last)] == [
        ("answered", "a", 1),
        ("answered", "a", 2),
    ]
    assert (first.sent_bytes, last.sent_bytes) == (16, 8)
    assert first.received_bytes > 16
    assert [call.request_id for call in worker.calls] == ["7,8#1", "7,8#2"]


def test_what_failed_and_what_was_sent_again_is_told_as_such(bench: Bench) -> None:
    def fail(call: Call) -> dict[str, Array]:
        raise HangUp

    def refuse(call: Call) -> dict[str, Array]:
        raise Refuse(400, "no")

    bench.worker("a", fail)
    bench.route("a")
    bench.worker("b", refuse)
    delivery = bench.delivery()
    write(bench.run_dir / "routes" / "d.json", *({"worker": n, "model": "m", "batch": 4, "slots": 1} for n in "ab"))
    trips: list[Trip] = []
    while not any(trip.outcome == "failed" for trip in trips):
        trips = delivery.run(Batch(DispatcherSpec("g", "t", "stack", X, Y), requests(1)))
    assert [(trip.outcome, trip.entry.worker, trip.part.again) for trip in trips] == [
        ("failed", "a", False),
        ("refused", "b", True),
    ]
