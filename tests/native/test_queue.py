"""The queue of a task: its order, its limits, and the requests that share a batch."""

import time
from typing import Any

import numpy as np
import pytest

from tests.native import specs
from tests.native.conftest import Bench, column, occupy
from tests.native.core import Array, Front
from tests.native.specs import LIST, spec, task
from tests.native.worker import Call, Worker


def sent(worker: Worker) -> list[list[int]]:
    """Values of each call except the first, which occupied the worker."""
    return [call.inputs["X"].ravel().tolist() for call in worker.calls[1:]]


def test_waiting_requests_share_a_batch(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=8)
    front = bench.front()
    first = occupy(front, worker)
    requests = [front.send({"X": column(*range(n))}) for n in (1, 3, 2)]
    worker.answering.set()
    assert [request.wait()["Y"].ravel().tolist() for request in requests] == [[0], [0, 2, 4], [0, 2]]
    assert sent(worker) == [[0, 0, 1, 2, 0, 1]]
    assert first[0].wait()["Y"].tolist() == [[-2]]


def test_a_batch_may_end_in_the_middle_of_a_request(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=4)
    front = bench.front()
    occupy(front, worker)
    requests = [front.send({"X": column(*range(10 * n, 10 * n + 3))}) for n in range(4)]
    worker.answering.set()
    for n, request in enumerate(requests):
        assert request.wait()["Y"].ravel().tolist() == [2 * value for value in range(10 * n, 10 * n + 3)]
    assert worker.batches == [1, 4, 4, 4]


def test_the_earliest_deadline_goes_first(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=1)
    front = bench.front()
    occupy(front, worker)
    timeouts = (40, 20, 50, 10, 30)
    requests = [front.send({"X": column(n)}, timeout_us=n * 1_000_000) for n in timeouts]
    requests.append(front.send({"X": column(60)}))
    worker.answering.set()
    for request in requests:
        request.wait()
    assert sent(worker) == [[n] for n in sorted([*timeouts, 60])]


def test_a_higher_priority_goes_before_an_earlier_deadline(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=1)
    front = bench.front()
    occupy(front, worker)
    requests = [front.send({"X": column(n)}, priority=n % 3, timeout_us=(60 - n) * 1_000_000) for n in range(9)]
    worker.answering.set()
    for request in requests:
        request.wait()
    assert sent(worker) == [[n] for n in (8, 5, 2, 7, 4, 1, 6, 3, 0)]


def test_rows_of_different_shapes_do_not_share_a_batch(bench: Bench) -> None:
    worker = bench.worker(handler=lambda call: {"Y": call.inputs["X"].sum(axis=1, keepdims=True)})
    bench.route("w", batch=8)
    made = task(inputs={"X": ("inputs.X", LIST)}, mode="rows", iterated=["X"])
    outputs = {"Y": ("t.Y", ("INT64", (-1, 1)))}
    front = bench.engine.front(spec([made], {"X": ("INT64", (-1, -1))}, outputs))
    worker.answering.clear()
    shapes = [(1, 1, 1), (1, 2, 3), (1, 1, 4), (1, 3, 3), (1, 1, 4)]
    requests = [front.send({"X": np.ones(shape, np.int64)}) for shape in shapes]
    worker.wait(1)
    worker.answering.set()
    for request, (_, rows, size) in zip(requests, shapes, strict=True):
        assert request.wait()["Y"].tolist() == [[[size]] * rows]
    assert [call.inputs["X"].shape for call in worker.calls] == [(1, 1), (5, 3), (2, 4)]


def test_cancelled_requests_are_dropped(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=8)
    front = bench.front()
    occupy(front, worker)
    requests = [front.send({"X": column(n)}) for n in range(6)]
    for request in requests[::2]:
        request.cancel()
    worker.answering.set()
    assert [request.wait().blame for request in requests[::2]] == ["cancelled"] * 3
    assert [request.wait()["Y"].item() for request in requests[1::2]] == [2, 6, 10]
    assert sent(worker) == [[1, 3, 5]]
    assert bench.engine.metric("jigsaw_refused_total", reason="cancelled") == 3


def test_a_cancelled_request_is_dropped_without_another_event(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w")
    front = bench.front()
    occupy(front, worker)
    request = front.send({"X": column(1)})
    request.cancel()
    assert request.wait().blame == "cancelled"
    assert len(worker.calls) == 1
    worker.answering.set()


def test_a_request_that_is_cancelled_during_its_call_is_answered(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w")
    front = bench.front()
    (request,) = occupy(front, worker)
    request.cancel()
    worker.answering.set()
    assert request.wait()["Y"].item() == -2


def test_the_rest_of_a_failed_request_is_not_sent(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=2)
    front = bench.front()
    occupy(front, worker)
    worker.handler = lambda call: {"Y": call.inputs["X"][:, :0]}
    request = front.send({"X": column(*range(100))})
    worker.answering.set()
    assert request.wait().blame == "model"
    assert worker.batches == [1, 2]


def of_rows(bench: Bench, **more: Any) -> tuple[Worker, Front]:
    """Starts a worker that returns its input, and makes a front of one task that calls it with rows of requests."""
    worker = bench.worker(handler=lambda call: {"Y": call.inputs["X"]})
    bench.route("w", batch=64, service_ms={"1": 1, "64": 2})
    made = task(inputs={"X": ("inputs.X", ("INT64", (1,)))}, mode="rows", iterated=["X"])
    outputs = {"Y": ("t.Y", ("INT64", (-1, 1)))}
    return worker, bench.engine.front(spec([made], {"X": ("INT64", (-1, 1))}, outputs, **more))


def test_a_huge_request_does_not_cause_small_ones_to_be_refused(bench: Bench) -> None:
    worker, front = of_rows(bench, slo_ms=4000)
    worker.answering.clear()
    # The rows of this request take about 9 s.
    large = front.send({"X": np.zeros((1, 300_000, 1), np.int64)}, timeout_us=600_000_000)
    worker.wait(1)
    small = front.send({"X": np.ones((1, 1, 1), np.int64)})
    another = front.ask({"X": np.zeros((1, 300_000, 1), np.int64)})
    assert "overloaded" in another.message
    worker.answering.set()
    assert small.wait()["Y"].item() == 1
    assert large.wait()["Y"].shape == (1, 300_000, 1)


def test_a_huge_request_does_not_delay_small_ones(bench: Bench) -> None:
    worker, front = of_rows(bench)
    large = 100 + np.arange(300_000).reshape(1, -1, 1)
    request = front.send({"X": large})
    worker.wait(2)
    for n in range(20):
        before = len(worker.calls)
        assert front.ask({"X": np.full((1, 1, 1), -n, np.int64)})["Y"].item() == -n
        # The huge request makes 4,688 calls; few of them may precede the small one.
        position = next(at for at, call in enumerate(worker.calls) if -n in call.inputs["X"] and at >= before)
        assert position - before < 100
    assert request.wait()["Y"].tobytes() == large.tobytes()


@pytest.mark.slow
def test_a_hundred_thousand_requests_can_wait(bench: Bench) -> None:
    worker = bench.worker(handler=lambda call: {"Y": call.inputs["X"]})
    bench.route("w", batch=1024)
    front = bench.front()
    (first,) = occupy(front, worker)
    requests = front.send_many(100_000, {"X": column(7)})
    assert not any(request.ended() for request in requests[::1000])
    outcome = front.ask({"X": column(8)})
    assert outcome.blame == "worker"
    assert "its queue is full: 100000 requests" in outcome.message
    worker.answering.set()
    first.wait()
    assert [request.wait()["Y"].item() for request in requests[::1000]] == [7] * 100
    for request in requests:
        assert request.ended(60)
    assert max(worker.batches) == 1024
    assert bench.engine.metric("jigsaw_refused_total", reason="full") == 1


def test_the_bytes_of_waiting_requests_are_limited(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=1)
    front = bench.front(most_bytes=100, most_requests=1000)
    occupy(front, worker)
    requests = [front.send({"X": column(*range(n))}) for n in (5, 5, 5, 2)]
    full = requests.pop(2).wait()
    assert full.blame == "worker"
    assert "its queue is full" in full.message
    worker.answering.set()
    for request in requests:
        assert request.wait().failure is None
    # Requests that have left the queue no longer count.
    assert front.ask({"X": column(*range(12))}).failure is None


def test_a_request_larger_than_the_queue_is_refused(bench: Bench) -> None:
    bench.worker()
    bench.route("w", batch=64)
    front = bench.front(most_bytes=100)
    assert "its queue is full" in front.ask({"X": column(*range(20))}).message


@pytest.mark.parametrize("limit", [1, 3, 16])
def test_no_request_gets_the_answer_of_another(bench: Bench, limit: int) -> None:
    """Several workers run batches that split requests, and answer in any order."""
    order = np.random.default_rng(limit)

    def late(call: Call) -> dict[str, Array]:
        time.sleep(order.random() / 1000)
        return {"Y": 3 * call.inputs["X"]}

    for name in "abc":
        bench.worker(name, late)
    bench.route("a", "b", "c", batch=limit, slots=2)
    front = bench.front()
    sizes = [1 + n * n % 11 for n in range(80)]
    requests = [front.send({"X": 1000 * n + np.arange(size).reshape(-1, 1)}) for n, size in enumerate(sizes)]
    for n, (size, request) in enumerate(zip(sizes, requests, strict=True)):
        assert request.wait()["Y"].ravel().tolist() == [3 * (1000 * n + item) for item in range(size)]


def test_requests_of_random_sizes_share_workers_of_different_batch_sizes(bench: Bench) -> None:
    rng = np.random.default_rng(5)
    for name in "abc":
        bench.worker(name)
    entries = [specs.entry(name, batch=batch) for name, batch in zip("abc", (1, 7, 32), strict=True)]
    specs.write_route(bench.run_dir, *entries)
    # On a busy machine a call may take so long that the last requests would be refused as late.
    front = bench.front(slo_ms=3_600_000.0)
    values = [rng.integers(0, 1000, (rng.integers(1, 40), 1)) for _ in range(150)]
    requests = [front.send({"X": value}) for value in values]
    for value, request in zip(values, requests, strict=True):
        assert request.wait()["Y"].tolist() == (2 * value).tolist()
