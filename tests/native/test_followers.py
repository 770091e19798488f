"""Followers: the time that a task reserves for the tasks after it, and backpressure from them."""

import time

import pytest

from tests.native import specs
from tests.native.conftest import Bench, column, occupy
from tests.native.core import Array, Front
from tests.native.worker import Call, Worker


@pytest.mark.parametrize("followers", [[], ["not there"]])
def test_a_front_reserves_rest_ms_while_its_followers_are_unknown(bench: Bench, followers: list[str]) -> None:
    """The compiler estimates the time of later steps; the front uses the estimate until it can see their fronts."""
    worker = bench.worker()
    bench.route("w", service_ms={"1": 5.0})
    made = specs.spec([specs.task(rest_ms=30_000.0, followers=followers)], clock=True, slo_ms=60_000)
    front = bench.engine.front(made)
    now = time.monotonic_ns()
    occupy(front, worker)
    assert front.ask({"X": column(1)}, arrival=now, deadline=now + 20_000_000_000).blame == "worker"
    assert time.monotonic_ns() < now + 10_000_000_000
    kept = front.send({"X": column(1)}, arrival=now, deadline=now + 80_000_000_000)
    worker.answering.set()
    assert kept.wait().failure is None


def test_the_service_time_of_a_follower_tightens_the_deadline(bench: Bench) -> None:
    worker = bench.worker("a")
    bench.worker("b")
    bench.route("a", name="a", service_ms={"1": 5.0})
    bench.route("b", name="b", service_ms={"1": 700.0})
    tasks = [specs.task("a"), specs.task("b", {"X": ("a.Y", specs.ONE)})]
    outputs = {"A": ("a.Y", specs.ONE), "B": ("b.Y", specs.ONE)}
    front = bench.engine.front(specs.spec(tasks, outputs=outputs, slo_ms=60_000))
    occupy(front, worker)
    outcome = front.ask({"X": column(1)}, timeout_us=600_000)
    worker.answering.set()
    assert outcome.message.startswith("task a: overloaded")


@pytest.mark.slow
def test_a_refusal_names_the_later_task_whose_workers_cannot_be_reached(bench: Bench) -> None:
    worker = bench.worker("a")
    bench.route("a", name="a", batch=1, service_ms={"1": 5.0})
    bench.route("nobody", name="b", batch=1, service_ms={"1": 5.0})
    tasks = [specs.task("a"), specs.task("b", {"X": ("a.Y", specs.ONE)})]
    front = bench.engine.front(specs.spec(tasks, outputs={"Y": ("b.Y", specs.ONE)}, slo_ms=1000))
    assert front.ask({"X": column(1)}).message.startswith("task b: none of its 1 workers can be reached")
    worker.answering.clear()
    occupied = front.send({"X": column(1)})
    worker.wait(2)
    outcome = front.ask({"X": column(1)})
    worker.answering.set()
    assert outcome.message.startswith("task a: no worker of task b can be reached: the request waited for ")
    assert bench.engine.metric("jigsaw_refused_total", task="a", reason="worker") == 1
    assert occupied.wait().blame == "worker"


@pytest.mark.slow
def test_one_slow_call_of_a_follower_refuses_nothing(bench: Bench) -> None:
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
    worker.answering.clear()
    first = front.send({"X": column(1)})
    worker.wait(2)
    second = front.send({"X": column(2)}, timeout_us=400_000)
    assert not second.ended()
    worker.answering.set()
    assert first.wait().failure is None
    assert second.wait()["Y"].item() == 8


def test_fronts_that_follow_each_other_in_a_cycle_are_harmless(bench: Bench) -> None:
    # Such a cycle exists for a moment while an update swaps two tasks of a graph.
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


def two_fronts(bench: Bench, service_ms: dict[str, float]) -> tuple[Front, Front, Worker, Worker]:
    """Makes two one-task fronts, like the steps of an ensemble, and their workers."""
    workers = bench.worker("a"), bench.worker("b")
    bench.route("a", name="a", batch=1, service_ms={"1": 5.0})
    bench.route("b", name="b", batch=1, service_ms=service_ms)
    tasks = specs.task("a", followers=["b"], entry=True), specs.task("b")
    a, b = (
        bench.engine.front(specs.spec([task], outputs={"Y": (f"{task['name']}.Y", specs.ONE)}, clock=True))
        for task in tasks
    )
    return a, b, *workers


def test_a_one_task_front_reserves_the_service_time_of_its_follower(bench: Bench) -> None:
    first, _, worker, _ = two_fronts(bench, {"1": 700.0})
    now = time.monotonic_ns()
    occupy(first, worker)
    outcome = first.ask({"X": column(1)}, arrival=now, deadline=now + 600_000_000)
    worker.answering.set()
    assert outcome.message.startswith("task a: overloaded")


def test_a_one_task_front_sends_nothing_while_its_follower_is_full(bench: Bench) -> None:
    first, second, worker, next_worker = two_fronts(bench, {"1": 1000.0})
    waiting = occupy(second, next_worker) + second.send_many(3, {"X": column(1)})
    request = first.send({"X": column(4)})
    time.sleep(0.2)
    assert not worker.calls
    next_worker.answering.set()
    assert request.wait()["Y"].item() == 8
    for other in waiting:
        assert other.wait().failure is None


def test_a_request_that_another_task_has_served_may_use_its_whole_deadline(bench: Bench) -> None:
    first, second, worker, next_worker = two_fronts(bench, {"1": 300.0})
    occupy(first, worker)
    occupy(second, next_worker)
    now = time.monotonic_ns()
    # The call in flight may take 300 ms more, and the call of this request takes 300 ms.
    started = second.send({"X": column(1)}, arrival=now, deadline=now + 550_000_000)
    assert not started.ended()
    worker.answering.set()
    next_worker.answering.set()
    assert started.wait().failure is None
