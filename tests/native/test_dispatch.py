"""Dispatch: the worker that gets the next batch, and the batches that a worker runs at the same time."""

import threading

from tests.native import specs
from tests.native.conftest import Bench, column, double
from tests.native.core import Array
from tests.native.worker import Call
from tests.waiting import WAIT_LIMIT_S


class Held:
    """Handler that answers a call when it is released."""

    def __init__(self) -> None:
        self._released: set[int] = set()
        self._changed = threading.Condition()

    def __call__(self, call: Call) -> dict[str, Array]:
        with self._changed:
            assert self._changed.wait_for(lambda: call.number in self._released, WAIT_LIMIT_S)
        return double(call)

    def release(self, *calls: Call) -> None:
        with self._changed:
            self._released |= {call.number for call in calls}
            self._changed.notify_all()


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
    front = bench.front()
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


def test_the_one_of_many_workers_that_becomes_free_gets_the_next_batch(bench: Bench) -> None:
    held = Held()
    server = bench.worker("w", held)
    models = [f"m{n}" for n in range(200)]
    specs.write_route(bench.run_dir, *(specs.entry("w", model=model, batch=1) for model in models))
    front = bench.front()
    requests = front.send_many(len(models), {"X": column(1)})
    server.wait(len(models))
    running = {call.model: call for call in server.calls}
    assert running.keys() == set(models)
    for model in ("m137", "m0", "m63", "m64", "m199", "m137"):
        requests.append(front.send({"X": column(1)}))
        held.release(running[model])
        server.wait(len(requests))
        assert server.calls[-1].model == model
        running[model] = server.calls[-1]
    held.release(*server.calls)
    assert all(request.wait()["Y"].item() == 2 for request in requests)


def test_a_worker_has_slots_for_each_task_that_shares_it(bench: Bench) -> None:
    held = Held()
    server = bench.worker("w", held)
    few, many = (
        bench.engine.front(specs.spec([specs.task(name)], outputs={"Y": (f"{name}.Y", specs.ONE)})) for name in "tu"
    )
    for name, slots in (("t", 1), ("u", 2)):
        specs.write_route(bench.run_dir, specs.entry("w", batch=1, slots=slots), name=name)
    requests = [few.send({"X": column(0)})]
    server.wait(1)
    # One call takes all slots that the task `t` has, and leaves one to `u`.
    requests += [few.send({"X": column(1)}), many.send({"X": column(2)})]
    server.wait(2)
    requests.append(many.send({"X": column(3)}))
    held.release(server.calls[0])
    server.wait(3)
    assert [call.inputs["X"].item() for call in server.calls] == [0, 2, 3]
    held.release(*server.calls)
    server.wait(4)
    held.release(*server.calls)
    assert [request.wait()["Y"].item() for request in requests] == [0, 2, 4, 6]


def test_a_new_route_counts_the_calls_in_flight(bench: Bench) -> None:
    held = Held()
    server = bench.worker("w", held)

    def route(*models: str) -> None:
        specs.write_route(bench.run_dir, *(specs.entry("w", model=model, batch=1) for model in models))

    route("a", "b")
    front = bench.front()
    requests = front.send_many(2, {"X": column(1)})
    server.wait(2)
    route("b", "c", "a")
    requests.append(front.send({"X": column(1)}))
    server.wait(3)
    assert server.calls[2].model == "c"
    requests.append(front.send({"X": column(1)}))
    (call,) = (call for call in server.calls if call.model == "a")
    held.release(call)
    server.wait(4)
    assert server.calls[3].model == "a"
    held.release(*server.calls)
    assert all(request.wait()["Y"].item() == 2 for request in requests)


def test_a_new_route_changes_the_slots_of_a_busy_worker(bench: Bench) -> None:
    held = Held()
    server = bench.worker("w", held)
    bench.worker("other")
    bench.route("other", name="u")
    bench.route("w", batch=1)
    front = bench.front()
    other = bench.engine.front(specs.spec([specs.task("u")], outputs={"Y": ("u.Y", specs.ONE)}))
    requests = front.send_many(2, {"X": column(1)})
    server.wait(1)
    bench.route("w", batch=1, slots=2)
    requests.append(front.send({"X": column(1)}))
    server.wait(2)
    bench.route("w", batch=1, slots=1)
    requests.append(front.send({"X": column(1)}))
    held.release(server.calls[0])
    requests[0].wait()
    # The engine sends the next batch, if any, before it handles this answer.
    other.ask({"X": column(1)})
    assert len(server.calls) == 2
    for calls in (3, 4):
        held.release(*server.calls)
        server.wait(calls)
    held.release(*server.calls)
    assert all(request.wait()["Y"].item() == 2 for request in requests)


def test_a_front_that_ends_leaves_the_slots_of_a_worker_to_another(bench: Bench) -> None:
    held = Held()
    server = bench.worker("w", held)
    ending, staying = (
        bench.engine.front(specs.spec([specs.task(name)], outputs={"Y": (f"{name}.Y", specs.ONE)})) for name in "tu"
    )
    for name in "tu":
        bench.route("w", name=name, batch=1)
    first = ending.send({"X": column(1)})
    server.wait(1)
    requests = staying.send_many(2, {"X": column(1)})
    held.release(server.calls[0])
    assert first.wait()["Y"].item() == 2
    server.wait(2)
    ending.close()
    held.release(*server.calls)
    server.wait(3)
    held.release(*server.calls)
    assert all(request.wait()["Y"].item() == 2 for request in requests)
