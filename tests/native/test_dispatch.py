"""Dispatch: the worker that gets the next batch, and the batches that a worker runs at the same time."""

import threading

import pytest

from tests.native import specs
from tests.native.conftest import Bench, column, double
from tests.native.core import Array, Front
from tests.native.worker import Call
from tests.waiting import WAIT_LIMIT_S


class Held:
    """Worker `w`, which answers a call when it is released."""

    def __init__(self, bench: Bench) -> None:
        self._released: set[int] = set()
        self._changed = threading.Condition()
        self._worker = bench.worker("w", self._answer)

    @property
    def calls(self) -> list[Call]:
        """Calls that have arrived."""
        return self._worker.calls

    def wait(self, calls: int) -> None:
        """Waits for this many calls since the start."""
        self._worker.wait(calls)

    def release(self, *calls: Call) -> None:
        with self._changed:
            self._released |= {call.number for call in calls}
            self._changed.notify_all()

    def _answer(self, call: Call) -> dict[str, Array]:
        with self._changed:
            assert self._changed.wait_for(lambda: call.number in self._released, WAIT_LIMIT_S)
        return double(call)


def without_early_calls(bench: Bench) -> Front:
    """Makes a front of a task whose workers get no call before a slot is free."""
    return bench.front(tasks=[specs.task(retry=False)])


@pytest.fixture
def held(bench: Bench) -> Held:
    return Held(bench)


def front_of(bench: Bench, task: str) -> Front:
    """Makes a front of one task of this name."""
    return bench.engine.front(specs.spec([specs.task(task)], outputs={"Y": (f"{task}.Y", specs.ONE)}))


def test_the_least_busy_worker_gets_the_next_batch(bench: Bench) -> None:
    workers = [bench.worker(name) for name in "abcd"]
    bench.route(*"abcd", batch=1, slots=3)
    front = bench.front()
    for worker in workers:
        worker.answering.clear()
    requests = front.send_many(8, {"X": column(1)})
    for worker in workers:
        worker.wait(2)
    requests += front.send_many(4, {"X": column(1)})
    for worker in workers:
        worker.wait(3)
    for worker in workers:
        worker.answering.set()
    for request in requests:
        request.wait()
    assert [len(worker.calls) for worker in workers] == [3, 3, 3, 3]


def test_sequential_requests_alternate_between_workers(bench: Bench) -> None:
    workers = [bench.worker(name) for name in "ab"]
    bench.route(*"ab", service_ms={"1": 0.01})
    front = bench.front()
    for _ in range(40):
        front.ask({"X": column(1)})
    assert all(worker.calls for worker in workers)


def test_service_times_of_the_route_apply_before_the_first_call(bench: Bench) -> None:
    """A slow worker gets no batch while a fast one is free."""
    slow, fast = bench.worker("slow"), bench.worker("fast")
    entries = [specs.entry("slow", service_ms={"1": 500.0}), specs.entry("fast", slots=2, service_ms={"1": 1.0})]
    specs.write_route(bench.run_dir, *entries)
    front = bench.front()
    for _ in range(10):
        front.ask({"X": column(1)})
    assert (len(slow.calls), len(fast.calls)) == (0, 10)


def test_a_worker_runs_as_many_batches_as_it_has_slots(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=1, slots=3)
    front = without_early_calls(bench)
    worker.answering.clear()
    requests = front.send_many(12, {"X": column(1)})
    worker.wait(3)
    worker.answering.set()
    for request in requests:
        request.wait()
    assert worker.max_concurrent == 3


def test_fronts_share_the_slots_of_a_worker(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=1, slots=2)
    fronts = [bench.front() for _ in range(3)]
    worker.answering.clear()
    requests = [front.send({"X": column(n)}) for n in range(4) for front in fronts]
    worker.wait(2)
    worker.answering.set()
    for request in requests:
        request.wait()
    assert worker.max_concurrent == 2


def test_the_one_of_many_workers_that_becomes_free_gets_the_next_batch(bench: Bench, held: Held) -> None:
    models = [f"m{n}" for n in range(200)]
    specs.write_route(bench.run_dir, *(specs.entry("w", model=model, batch=1) for model in models))
    front = without_early_calls(bench)
    requests = front.send_many(len(models), {"X": column(1)})
    held.wait(len(models))
    running = {call.model: call for call in held.calls}
    assert running.keys() == set(models)
    for model in ("m137", "m0", "m63", "m64", "m199", "m137"):
        requests.append(front.send({"X": column(1)}))
        held.release(running[model])
        held.wait(len(requests))
        assert held.calls[-1].model == model
        running[model] = held.calls[-1]
    held.release(*held.calls)
    assert all(request.wait()["Y"].item() == 2 for request in requests)


def test_a_worker_has_slots_for_each_task_that_shares_it(bench: Bench, held: Held) -> None:
    few, many = (front_of(bench, task) for task in "tu")
    for name, slots in (("t", 1), ("u", 2)):
        specs.write_route(bench.run_dir, specs.entry("w", batch=1, slots=slots), name=name)
    requests = [few.send({"X": column(0)})]
    held.wait(1)
    # One call takes all slots that the task `t` has, and leaves one to `u`.
    requests += [few.send({"X": column(1)}), many.send({"X": column(2)})]
    held.wait(2)
    requests.append(many.send({"X": column(3)}))
    held.release(held.calls[0])
    held.wait(3)
    assert [call.inputs["X"].item() for call in held.calls] == [0, 2, 3]
    held.release(*held.calls)
    held.wait(4)
    held.release(*held.calls)
    assert [request.wait()["Y"].item() for request in requests] == [0, 2, 4, 6]


def test_a_new_route_counts_the_calls_in_flight(bench: Bench, held: Held) -> None:
    def route(*models: str) -> None:
        specs.write_route(bench.run_dir, *(specs.entry("w", model=model, batch=1) for model in models))

    route("a", "b")
    front = bench.front()
    requests = front.send_many(2, {"X": column(1)})
    held.wait(2)
    route("b", "c", "a")
    requests.append(front.send({"X": column(1)}))
    held.wait(3)
    assert held.calls[2].model == "c"
    requests.append(front.send({"X": column(1)}))
    (call,) = (call for call in held.calls if call.model == "a")
    held.release(call)
    held.wait(4)
    assert held.calls[3].model == "a"
    held.release(*held.calls)
    assert all(request.wait()["Y"].item() == 2 for request in requests)


def test_a_new_route_changes_the_slots_of_a_busy_worker(bench: Bench, held: Held) -> None:
    bench.worker("other")
    bench.route("other", name="u")
    bench.route("w", batch=1)
    front = bench.front()
    other = front_of(bench, "u")
    requests = front.send_many(2, {"X": column(1)})
    held.wait(1)
    bench.route("w", batch=1, slots=2)
    requests.append(front.send({"X": column(1)}))
    held.wait(2)
    bench.route("w", batch=1, slots=1)
    requests.append(front.send({"X": column(1)}))
    held.release(held.calls[0])
    requests[0].wait()
    # The engine sends the next batch, if any, before it handles this answer.
    other.ask({"X": column(1)})
    assert len(held.calls) == 2
    for calls in (3, 4):
        held.release(*held.calls)
        held.wait(calls)
    held.release(*held.calls)
    assert all(request.wait()["Y"].item() == 2 for request in requests)


def test_a_front_that_ends_leaves_the_slots_of_a_worker_to_another(bench: Bench, held: Held) -> None:
    ending, staying = (front_of(bench, task) for task in "tu")
    for name in "tu":
        bench.route("w", name=name, batch=1)
    first = ending.send({"X": column(1)})
    held.wait(1)
    requests = staying.send_many(2, {"X": column(1)})
    held.release(held.calls[0])
    assert first.wait()["Y"].item() == 2
    held.wait(2)
    ending.close()
    held.release(*held.calls)
    held.wait(3)
    held.release(*held.calls)
    assert all(request.wait()["Y"].item() == 2 for request in requests)
