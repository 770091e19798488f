"""Which requests a task takes in, and which worker gets what."""

import json
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.native import specs
from tests.native.conftest import Bench
from tests.native.core import Array, Front, eventually
from tests.native.test_queue import busy, column
from tests.native.worker import Call, Worker


def test_a_request_that_cannot_meet_its_deadline_is_refused_at_once(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", service_ms={"1": 1000.0, "4": 1500.0})
    front = bench.front(slo_ms=900)
    (first,) = busy(front, worker)
    outcome = front.ask({"X": column(1)})
    worker.going.set()
    # What is sent at once is sent whatever is expected of it.
    assert first.wait()["Y"].item() == -2
    assert outcome.blame == "worker"
    assert re.match(r"task t: overloaded: the request waited for \d+ ms and cannot be answered within", outcome.message)
    assert outcome.message.endswith("the latency promised")
    assert bench.engine.metric("jigsaw_refused_total", reason="late") == 1
    assert bench.engine.metric("jigsaw_slo_total", outcome="failed") == 1


def test_those_that_wait_count(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=1, service_ms={"1": 200.0})
    front = bench.front(slo_ms=60_000)
    busy(front, worker)
    requests = front.send_many(20, {"X": column(1)})
    refused = front.ask({"X": column(1)}, timeout_us=3_000_000)
    assert "cannot be answered within its timeout of 3000 ms" in refused.message
    kept = front.send({"X": column(1)}, timeout_us=30_000_000)
    worker.going.set()
    for request in (*requests, kept):
        assert request.wait().failure is None


def test_where_overload_is_to_queue_requests_wait(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=1, service_ms={"1": 1000.0})
    front = bench.front(slo_ms=1, overload="queue")
    busy(front, worker)
    requests = front.send_many(50, {"X": column(1)})
    time.sleep(0.05)
    assert not any(request.ended() for request in requests)
    worker.going.set()
    for request in requests:
        assert request.wait().failure is None
    assert bench.engine.metric("jigsaw_slo_total", outcome="missed") == 51


@pytest.mark.parametrize("slo_ms", [300, 3000])
def test_where_overload_is_to_queue_requests_do_not_wait_for_workers_that_are_not_there(
    bench: Bench, slo_ms: int
) -> None:
    # A worker that cannot be reached is tried again after up to 2 s, and counts as such meanwhile.
    bench.route("nobody")
    front = bench.front(slo_ms=slo_ms, overload="queue")
    began = time.monotonic()
    outcome = front.ask({"X": column(1)})
    assert outcome.blame == "worker"
    assert outcome.message.startswith(
        "task t: none of its 1 workers can be reached; worker nobody failed: cannot connect"
    )
    assert slo_ms <= 1000 * (time.monotonic() - began) <= slo_ms + 1000


def test_where_overload_is_to_queue_requests_wait_for_a_worker_that_starts_again(bench: Bench) -> None:
    bench.route("w")
    front = bench.front(slo_ms=30_000, overload="queue")
    request = front.send({"X": column(1)})
    eventually(lambda: bench.engine.metric("jigsaw_batches_lost_total") > 0)
    bench.worker("w")
    assert request.wait().failure is None


def test_where_overload_is_to_queue_a_timeout_counts_all_the_same(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w")
    front = bench.front(slo_ms=60_000, overload="queue")
    busy(front, worker)
    request = front.send({"X": column(1)}, timeout_us=30_000)
    assert "its timeout of 30 ms" in request.wait().message
    worker.going.set()


@pytest.mark.parametrize(("more", "promise"), [({}, "the latency promised"), ({"timeout_us": 30_000}, "30 ms")])
def test_a_request_is_refused_once_its_deadline_passes(bench: Bench, more: dict[str, int], promise: str) -> None:
    worker = bench.worker()
    bench.route("w")
    front = bench.front(slo_ms=60 if not more else 60_000)
    busy(front, worker)
    outcome = front.send({"X": column(1)}, **more).wait()
    assert outcome.blame == "worker"
    assert promise in outcome.message
    worker.going.set()


@pytest.mark.parametrize("timeout_us", [1 << 62, (1 << 63) - 1])
def test_a_timeout_may_be_as_long_as_there_are_numbers(bench: Bench, timeout_us: int) -> None:
    bench.worker()
    bench.route("w")
    assert bench.front().ask({"X": column(1)}, timeout_us=timeout_us)["Y"].item() == 2


def test_a_deadline_of_an_earlier_step_counts(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", service_ms={"1": 5.0})
    front = bench.engine.front(specs.spec(clock=True, slo_ms=60_000))
    busy(front, worker)
    now = time.monotonic_ns()
    outcome = front.ask({"X": column(1)}, arrival=now - 700_000_000, deadline=now + 1_000_000)
    worker.going.set()
    assert "the request waited for 70" in outcome.message
    later = front.ask({"X": column(1)}, arrival=now - 700_000_000, deadline=now + 60_000_000_000)
    assert later["Y"].item() == 2
    assert later.arrival_ns == now - 700_000_000


def test_an_early_arrival_does_not_make_a_batch_seem_slow(bench: Bench) -> None:
    bench.worker()
    bench.route("w", deadline_ms={"1": 5_000.0})
    front = bench.engine.front(specs.spec(clock=True, slo_ms=60_000))
    now = time.monotonic_ns()
    # Were the call timed from the arrival, its deadline would have passed before it is sent.
    for _ in range(3):
        outcome = front.ask({"X": column(1)}, arrival=now - 40_000_000_000, deadline=now + 60_000_000_000)
        assert outcome.sent_ns > now
    assert bench.engine.metric("jigsaw_batch_seconds") < 20


@pytest.mark.parametrize("followers", [[], ["not there"]])
def test_time_of_what_follows_is_kept(bench: Bench, followers: list[str]) -> None:
    """A one-task front keeps what the compiler says of later steps, while it sees none."""
    worker = bench.worker()
    bench.route("w", service_ms={"1": 5.0})
    made = specs.spec([specs.task(rest_ms=30_000.0, followers=followers)], clock=True, slo_ms=60_000)
    front = bench.engine.front(made)
    now = time.monotonic_ns()
    busy(front, worker)
    assert front.ask({"X": column(1)}, arrival=now, deadline=now + 20_000_000_000).blame == "worker"
    assert time.monotonic_ns() < now + 10_000_000_000
    kept = front.send({"X": column(1)}, arrival=now, deadline=now + 80_000_000_000)
    worker.going.set()
    assert kept.wait().failure is None


def test_a_task_that_follows_leaves_less_time(bench: Bench) -> None:
    worker = bench.worker("a")
    bench.worker("b")
    bench.route("a", name="a", service_ms={"1": 5.0})
    bench.route("b", name="b", service_ms={"1": 700.0})
    tasks = [specs.task("a"), specs.task("b", {"X": ("a.Y", specs.ONE)})]
    outputs = {"A": ("a.Y", specs.ONE), "B": ("b.Y", specs.ONE)}
    front = bench.engine.front(specs.spec(tasks, outputs=outputs, slo_ms=60_000))
    busy(front, worker)
    outcome = front.ask({"X": column(1)}, timeout_us=600_000)
    worker.going.set()
    assert outcome.message.startswith("task a: overloaded")


def test_one_slow_call_of_a_task_that_follows_refuses_nothing(bench: Bench) -> None:
    slow = iter([0.5])

    def handler(call: Call) -> dict[str, Array]:
        time.sleep(next(slow, 0))
        return {"Y": 2 * call.inputs["X"]}

    worker = bench.worker("a")
    bench.worker("b", handler)
    for name in "ab":
        bench.route(name, name=name, service_ms={"1": 5.0})
    tasks = [specs.task("a"), specs.task("b", {"X": ("a.Y", specs.ONE)})]
    front = bench.engine.front(specs.spec(tasks, outputs={"Y": ("b.Y", specs.ONE)}))
    assert front.ask({"X": column(1)})["Y"].item() == 4
    worker.going.clear()
    first = front.send({"X": column(1)})
    worker.wait(2)
    second = front.send({"X": column(2)}, timeout_us=400_000)
    assert not second.ended()
    worker.going.set()
    assert first.wait().failure is None
    assert second.wait()["Y"].item() == 8


def test_fronts_that_follow_each_other_in_a_circle_do_no_harm(bench: Bench) -> None:
    # So it looks while a graph whose tasks have changed places is updated.
    for name in "ab":
        bench.worker(name)
        bench.route(name, name=name)
    a, b = (
        bench.engine.front(
            specs.spec([specs.task(one, followers=[other])], outputs={"Y": (f"{one}.Y", specs.ONE)}, clock=True)
        )
        for one, other in ("ab", "ba")
    )
    assert a.ask({"X": column(1)})["Y"].item() == 2
    assert b.ask({"X": column(1)})["Y"].item() == 2


def fronts_in_turn(bench: Bench, service_ms: dict[str, float]) -> tuple[Front, Front, Worker, Worker]:
    """Two fronts of one task each, as the steps of an ensemble are, and their workers."""
    workers = bench.worker("a"), bench.worker("b")
    bench.route("a", name="a", batch=1, service_ms={"1": 5.0})
    bench.route("b", name="b", batch=1, service_ms=service_ms)
    tasks = specs.task("a", followers=["b"], entry=True), specs.task("b")
    a, b = (
        bench.engine.front(specs.spec([task], outputs={"Y": (f"{task['name']}.Y", specs.ONE)}, clock=True))
        for task in tasks
    )
    return a, b, *workers


def test_a_front_of_one_task_knows_those_that_follow(bench: Bench) -> None:
    first, _, worker, _ = fronts_in_turn(bench, {"1": 700.0})
    now = time.monotonic_ns()
    busy(first, worker)
    outcome = first.ask({"X": column(1)}, arrival=now, deadline=now + 600_000_000)
    worker.going.set()
    assert outcome.message.startswith("task a: overloaded")


def test_a_front_of_one_task_sends_nothing_while_the_next_is_full(bench: Bench) -> None:
    first, second, worker, next_worker = fronts_in_turn(bench, {"1": 1000.0})
    waiting = busy(second, next_worker) + second.send_many(3, {"X": column(1)})
    request = first.send({"X": column(4)})
    time.sleep(0.2)
    assert not worker.calls
    next_worker.going.set()
    assert request.wait()["Y"].item() == 8
    for other in waiting:
        assert other.wait().failure is None


def test_work_that_was_begun_is_finished_where_there_is_a_chance(bench: Bench) -> None:
    first, second, worker, next_worker = fronts_in_turn(bench, {"1": 300.0})
    busy(first, worker)
    busy(second, next_worker)
    now = time.monotonic_ns()
    # The call under way may take 300 ms more, and its own takes as long.
    begun = second.send({"X": column(1)}, arrival=now, deadline=now + 550_000_000)
    assert not begun.ended()
    worker.going.set()
    next_worker.going.set()
    assert begun.wait().failure is None


def test_the_least_busy_worker_gets_the_next_batch(bench: Bench) -> None:
    workers = [bench.worker(name) for name in "abcd"]
    bench.route(*"abcd", batch=1, slots=3)
    front = bench.front()
    for worker in workers:
        worker.going.clear()
    requests = front.send_many(8, {"X": column(1)})
    for worker in workers:
        worker.wait(2)
    requests += front.send_many(4, {"X": column(1)})
    for worker in workers:
        worker.wait(3)
    for worker in workers:
        worker.going.set()
    for request in requests:
        request.wait()
    assert [len(worker.calls) for worker in workers] == [3, 3, 3, 3]


def test_requests_one_after_the_other_go_round(bench: Bench) -> None:
    workers = [bench.worker(name) for name in "ab"]
    bench.route(*"ab", service_ms={"1": 0.01})
    front = bench.front()
    for _ in range(40):
        front.ask({"X": column(1)})
    assert all(worker.calls for worker in workers)


def test_a_worker_has_as_many_batches_as_slots(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=1, slots=3)
    front = bench.front()
    worker.going.clear()
    requests = front.send_many(12, {"X": column(1)})
    worker.wait(3)
    worker.going.set()
    for request in requests:
        request.wait()
    assert worker.at_once == 3


def test_fronts_share_the_slots_of_a_worker(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=1, slots=2)
    fronts = [bench.front() for _ in range(3)]
    worker.going.clear()
    requests = [front.send({"X": column(n)}) for n in range(4) for front in fronts]
    worker.wait(2)
    worker.going.set()
    for request in requests:
        request.wait()
    assert worker.at_once == 2


@pytest.mark.parametrize("shares", [{"u": 0.75, "v": 0.25}, {"u": 0.5, "v": 0.3, "x": 0.2}])
@pytest.mark.parametrize("batch", [1, 4])
def test_variants_take_their_shares(bench: Bench, shares: dict[str, float], batch: int) -> None:
    taken: Counter[str] = Counter()

    def counted(name: str) -> None:
        def handler(call: Call) -> dict[str, Array]:
            taken[name] += call.items
            return {"Y": call.inputs["X"]}

        bench.worker(name, handler)

    for name in shares:
        counted(name)
    entries = [specs.entry(name, batch=batch, variant=name, share=share) for name, share in shares.items()]
    specs.write_route(bench.run_dir, *entries)
    front = bench.front()
    count = 400
    for request in front.send_many(count, {"X": column(1)}):
        request.wait()
    for name, share in shares.items():
        assert abs(taken[name] - share * count) <= 2 * batch + 1


def test_while_a_variant_is_out_the_others_do_without(bench: Bench) -> None:
    bench.worker("u")
    entries = [specs.entry(name, variant=name, share=0.5) for name in ("u", "gone")]
    specs.write_route(bench.run_dir, *entries)
    front = bench.front()
    for request in front.send_many(50, {"X": column(1)}):
        assert request.wait().failure is None


def test_a_new_route_is_followed(bench: Bench) -> None:
    first, second = bench.worker("a"), bench.worker("b")
    bench.route("a")
    front = bench.front()
    front.ask({"X": column(1)})
    bench.route("b")
    front.ask({"X": column(1)})
    assert len(first.calls) == len(second.calls) == 1


def test_a_route_may_come_later_than_the_requests(bench: Bench) -> None:
    front = bench.front()
    request = front.send({"X": column(1)})
    assert not request.ended(0.05)
    bench.worker()
    bench.route("w")
    assert request.wait()["Y"].item() == 2


def test_without_a_worker_requests_fail_at_their_deadline(bench: Bench) -> None:
    bench.route()
    outcome = bench.front(slo_ms=50).ask({"X": column(1)})
    assert outcome.blame == "worker"
    assert outcome.message == "task t: none of its 0 workers can be reached"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"version": 1, "workers": []}',
        '{"version": 2}',
        '{"version": 2, "workers": [{"worker": "../w", "model": "m", "batch": 1, "slots": 1}]}',
        '{"version": 2, "workers": [{"worker": "w", "model": "m", "batch": 0, "slots": 1}]}',
    ],
)
def test_a_damaged_route_keeps_the_one_before(bench: Bench, text: str) -> None:
    bench.worker()
    bench.route("w")
    front = bench.front()
    front.ask({"X": column(1)})
    specs.write_text(bench.run_dir, text)
    assert front.ask({"X": column(1)})["Y"].item() == 2
    assert front.ask({"X": column(1)})["Y"].item() == 2
    complaints = [line for line in bench.engine.logs if "cannot be read" in line]
    assert len(complaints) == 1
    assert complaints[0].startswith("error: route t cannot be read, its 1 entries stay")


def test_a_route_that_is_removed_keeps_the_one_before(bench: Bench) -> None:
    bench.worker()
    bench.route("w")
    front = bench.front()
    front.ask({"X": column(1)})
    (bench.run_dir / "routes" / "t.json").unlink()
    assert front.ask({"X": column(1)})["Y"].item() == 2
    bench.worker("v")
    bench.route("v")
    assert front.ask({"X": column(1)})["Y"].item() == 2


def test_a_route_may_change_while_requests_are_under_way(bench: Bench) -> None:
    workers = {name: bench.worker(name, lambda call: {"Y": call.inputs["X"]}) for name in "abc"}
    bench.route("a")
    front = bench.front()
    requests = []
    for turn in range(60):
        requests += front.send_many(5, {"X": column(turn)})
        bench.route(*"abc"[turn % 3 :], batch=1 + turn % 4, slots=1 + turn % 3)
    for n, request in enumerate(requests):
        assert request.wait()["Y"].item() == n // 5
    assert all(worker.calls for worker in workers.values())


def test_a_worker_with_another_address_is_another_server(bench: Bench, tmp_path: Path) -> None:
    bench.worker("w")
    bench.route("w")
    front = bench.front()
    front.ask({"X": column(1)})
    specs.write_route(bench.run_dir, specs.entry("w", address="worker.example:8000"))
    request = front.send({"X": column(1)}, timeout_us=300_000)
    assert request.wait().blame == "worker"
    assert any("its address is not numeric: worker.example:8000" in line for line in bench.engine.logs)
    bench.route("w")
    assert front.ask({"X": column(1)})["Y"].item() == 2


def test_what_the_route_says_of_times_is_known_before_the_first_call(bench: Bench) -> None:
    """A slow worker is not sent the next batch while a fast one is free."""
    slow, fast = bench.worker("slow"), bench.worker("fast")
    entries = [specs.entry("slow", service_ms={"1": 500.0}), specs.entry("fast", slots=2, service_ms={"1": 1.0})]
    specs.write_route(bench.run_dir, *entries)
    front = bench.front()
    for _ in range(10):
        front.ask({"X": column(1)})
    assert (len(slow.calls), len(fast.calls)) == (0, 10)


def test_gauges_tell_of_the_queue(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=1, slots=2)
    front = bench.front()
    worker.going.clear()
    requests = front.send_many(7, {"X": column(1)})
    worker.wait(2)
    eventually(lambda: bench.engine.metric("jigsaw_queue_length") == 5)
    assert bench.engine.metric("jigsaw_slots") == bench.engine.metric("jigsaw_slots_busy") == 2
    assert bench.engine.metric("jigsaw_queue_age_seconds") > 0
    assert bench.engine.metric("jigsaw_queue_headroom_seconds") > 0
    worker.going.set()
    for request in requests:
        request.wait()


def test_requests_and_batches_are_counted(bench: Bench) -> None:
    bench.worker()
    bench.route("w", variant="v")
    front = bench.engine.front(specs.spec([specs.task(variants=["v", "other"])]))
    for count in (1, 3, 4):
        front.ask({"X": column(*range(count))})
    engine = bench.engine
    assert engine.metric("jigsaw_arrivals_total", graph="g") == 8
    assert engine.metric("jigsaw_requests_total", task="t") == 3
    assert engine.metric("jigsaw_slo_total", outcome="met") == 3
    assert engine.metric("jigsaw_batch_items", variant="v") == 8
    assert engine.count("jigsaw_batch_items", variant="v") == 3
    assert engine.count("jigsaw_batch_items", variant="other") == 0
    assert engine.count("jigsaw_wait_seconds") == engine.count("jigsaw_dispatch_seconds") == 3
    assert engine.metric("jigsaw_sent_bytes_total") == 8 * 8
    assert engine.metric("jigsaw_received_bytes_total") > 8 * 8


def test_a_variant_that_the_task_does_not_know_is_counted(bench: Bench) -> None:
    bench.worker()
    bench.route("w", variant="new")
    bench.front().ask({"X": column(1)})
    assert bench.engine.count("jigsaw_batch_items", variant="unknown") == 1


def test_series_outlive_their_fronts(bench: Bench) -> None:
    bench.worker()
    bench.route("w")
    for _ in range(3):
        with bench.front() as front:
            front.ask({"X": column(1)})
    assert bench.engine.metric("jigsaw_requests_total") == 3


def test_large_batches_of_random_requests(bench: Bench) -> None:
    """Everything at once: shapes, sizes, several tasks' worth of workers."""
    rng = np.random.default_rng(5)
    for name in "abc":
        bench.worker(name)
    entries = [specs.entry(name, batch=batch) for name, batch in zip("abc", (1, 7, 32), strict=True)]
    specs.write_route(bench.run_dir, *entries)
    front = bench.front()
    values = [rng.integers(0, 1000, (rng.integers(1, 40), 1)) for _ in range(150)]
    requests = [front.send({"X": value}) for value in values]
    for value, request in zip(values, requests, strict=True):
        assert request.wait()["Y"].tolist() == (2 * value).tolist()


def test_routes_are_json_of_one_version(bench: Bench) -> None:
    path = specs.write_route(bench.run_dir, specs.entry("w"))
    assert json.loads(path.read_text())["version"] == 2
