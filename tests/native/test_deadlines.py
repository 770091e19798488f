"""Deadlines: requests that are refused because they cannot be answered in time, at arrival or while they wait."""

import re
import time

import pytest

from tests.native import specs
from tests.native.conftest import Bench, column, occupy
from tests.waiting import eventually


def test_a_request_that_cannot_meet_its_deadline_is_refused_at_once(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", service_ms={"1": 1000.0, "4": 1500.0})
    front = bench.front(slo_ms=900)
    (first,) = occupy(front, worker)
    outcome = front.ask({"X": column(1)})
    worker.answering.set()
    # A request that a free worker can run immediately is sent, although its expected service time is too long.
    assert first.wait()["Y"].item() == -2
    assert outcome.blame == "worker"
    assert re.match(r"task t: overloaded: the request waited for \d+ ms and cannot be answered within", outcome.message)
    assert outcome.message.endswith("the latency promised")
    assert bench.engine.metric("jigsaw_refused_total", reason="late") == 1
    assert bench.engine.metric("jigsaw_slo_total", outcome="failed") == 1


def test_the_longest_slo_on_the_route_is_promised(bench: Bench) -> None:
    """During a change to a plan for a longer SLO, its slower workers are on the route of the front for the shorter."""
    worker = bench.worker()
    bench.route("w", service_ms={"4": 1500.0}, slo_ms=60_000)
    front = bench.front(slo_ms=100)
    occupied = occupy(front, worker)
    waiting = front.send({"X": column(1)})
    assert not waiting.ended(0.05)
    # The next request still finds the old route when it arrives.
    bench.route("w", service_ms={"4": 1500.0}, slo_ms=50)
    late = front.send({"X": column(1)})
    assert "cannot be answered within the latency promised" in front.ask({"X": column(1)}).message
    time.sleep(0.15)
    worker.answering.set()
    assert [request.wait()["Y"].item() for request in (*occupied, waiting, late)] == [-2, 2, 2]
    assert bench.engine.metric("jigsaw_slo_total", outcome="missed") == 3


def test_the_backlog_counts_against_the_deadline(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=1, service_ms={"1": 200.0})
    front = bench.front(slo_ms=60_000)
    occupy(front, worker)
    requests = front.send_many(20, {"X": column(1)})
    refused = front.ask({"X": column(1)}, timeout_us=3_000_000)
    assert "cannot be answered within its timeout of 3000 ms" in refused.message
    kept = front.send({"X": column(1)}, timeout_us=30_000_000)
    worker.answering.set()
    for request in (*requests, kept):
        assert request.wait().failure is None


@pytest.mark.parametrize(("more", "promise"), [({}, "the latency promised"), ({"timeout_us": 30_000}, "30 ms")])
def test_a_waiting_request_is_refused_when_its_deadline_passes(
    bench: Bench, more: dict[str, int], promise: str
) -> None:
    worker = bench.worker()
    bench.route("w")
    front = bench.front(slo_ms=60 if not more else 60_000)
    occupy(front, worker)
    outcome = front.send({"X": column(1)}, **more).wait()
    assert outcome.blame == "worker"
    assert promise in outcome.message
    worker.answering.set()


@pytest.mark.parametrize("timeout_us", [1 << 62, (1 << 63) - 1])
def test_the_longest_timeout_does_not_overflow(bench: Bench, timeout_us: int) -> None:
    bench.worker()
    bench.route("w")
    assert bench.front().ask({"X": column(1)}, timeout_us=timeout_us)["Y"].item() == 2


def test_the_deadline_set_by_an_earlier_step_applies(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", service_ms={"1": 5.0})
    front = bench.engine.front(specs.spec(clock=True, slo_ms=60_000))
    occupy(front, worker)
    now = time.monotonic_ns()
    outcome = front.ask({"X": column(1)}, arrival=now - 700_000_000, deadline=now + 1_000_000)
    worker.answering.set()
    assert "the request waited for 70" in outcome.message
    later = front.ask({"X": column(1)}, arrival=now - 700_000_000, deadline=now + 60_000_000_000)
    assert later["Y"].item() == 2
    assert later.arrival_ns == now - 700_000_000


def test_service_time_starts_at_the_call_and_not_at_the_arrival(bench: Bench) -> None:
    bench.worker()
    bench.route("w", deadline_ms={"1": 5_000.0})
    front = bench.engine.front(specs.spec(clock=True, slo_ms=60_000))
    now = time.monotonic_ns()
    # If the deadline of the call were counted from the arrival, it would have passed before the call is sent.
    for _ in range(3):
        outcome = front.ask({"X": column(1)}, arrival=now - 40_000_000_000, deadline=now + 60_000_000_000)
        assert outcome.sent_ns > now
    assert bench.engine.metric("jigsaw_batch_seconds") < 20


def test_overload_queue_lets_requests_wait(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=1, service_ms={"1": 1000.0})
    front = bench.front(slo_ms=1, overload="queue")
    occupy(front, worker)
    requests = front.send_many(50, {"X": column(1)})
    time.sleep(0.05)
    assert not any(request.ended() for request in requests)
    worker.answering.set()
    for request in requests:
        assert request.wait().failure is None
    assert bench.engine.metric("jigsaw_slo_total", outcome="missed") == 51


@pytest.mark.parametrize("slo_ms", [300, 3000])
def test_overload_queue_does_not_wait_for_absent_workers(bench: Bench, slo_ms: int) -> None:
    # The backoff of an unreachable worker grows to 300 ms, and it counts as unreachable during the backoff.
    bench.route("nobody")
    front = bench.front(slo_ms=slo_ms, overload="queue")
    began = time.monotonic()
    outcome = front.ask({"X": column(1)})
    assert outcome.blame == "worker"
    assert outcome.message.startswith(
        "task t: none of its 1 workers can be reached; worker nobody failed: cannot connect"
    )
    assert slo_ms <= 1000 * (time.monotonic() - began) <= slo_ms + 1000


def test_overload_queue_waits_for_a_worker_that_restarts(bench: Bench) -> None:
    bench.route("w")
    front = bench.front(slo_ms=30_000, overload="queue")
    request = front.send({"X": column(1)})
    eventually(lambda: bench.engine.metric("jigsaw_batches_lost_total") > 0)
    bench.worker("w")
    assert request.wait().failure is None


def test_overload_queue_respects_the_timeout_of_a_request(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w")
    front = bench.front(slo_ms=60_000, overload="queue")
    occupy(front, worker)
    request = front.send({"X": column(1)}, timeout_us=30_000)
    assert "its timeout of 30 ms" in request.wait().message
    worker.answering.set()
