"""Dispatch: the worker that gets the next batch, and the batches that a worker runs at the same time."""

from tests.native import specs
from tests.native.conftest import Bench, column


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
