"""Requests of several generations that wait, fail or are shared out beside each other."""

import time
from collections.abc import Sequence
from typing import Any

import pytest

from tests.native.conftest import Bench, column
from tests.native.core import Array, Front
from tests.native.generations import bound, chosen, of, route, rows, rows_front, worker
from tests.native.specs import ONE, spec
from tests.native.test_flow import after
from tests.native.worker import Answer, Call, HangUp, Worker


def test_a_request_whose_workers_are_busy_does_not_hold_up_others(bench: Bench) -> None:
    old = worker(bench, "old", 3)
    route(bench, of("old", 3))
    front = bench.front()
    request = bound(front, old)
    worker(bench, "new", 4)
    route(bench, of("old", 3), of("new", 4))
    assert chosen([front.send({"X": column(n)}) for n in range(5)]) == {4}
    assert not request.ended()
    old.answering.set()
    assert chosen([request]) == {3}


def test_requests_that_wait_for_new_workers_do_not_hold_up_those_of_a_closed_generation(bench: Bench) -> None:
    old, new = worker(bench, "old", 3), worker(bench, "new", 4)
    route(bench, of("old", 3))
    front = bench.front()
    request = bound(front, old)
    route(bench, of("old", 3, closed=True), of("new", 4))
    new.answering.clear()
    others = [front.send({"X": column(n)}, timeout_us=20_000_000) for n in range(3)]
    new.wait(1)
    old.answering.set()
    assert chosen([request]) == {3}
    assert not any(other.ended() for other in others)
    new.answering.set()
    assert chosen(others) == {4}


def branches(bench: Bench) -> tuple[Front, dict[str, Worker]]:
    """A front of two parallel tasks: generation 3 of b, and both generations of c, whose workers are busy."""
    workers = {name: worker(bench, name, int(name[1])) for name in ("b3", "c3", "c4")}
    route(bench, of("b3", 3), name="b")
    route(bench, of("c3", 3), of("c4", 4), name="c")
    tasks = [after("b", "inputs.X"), after("c", "inputs.X")]
    front = bench.engine.front(spec(tasks, outputs={"B": ("b.Y", ONE), "C": ("c.Y", ONE)}))
    for name in ("c3", "c4"):
        workers[name].answering.clear()
    for _ in range(2):
        front.send({"X": column(1)}, wanted=["C"])
    for name in ("c3", "c4"):
        workers[name].wait(1)
    return front, workers


def test_a_task_binds_a_request_that_waits_at_a_parallel_task(bench: Bench) -> None:
    front, workers = branches(bench)
    request = front.send({"X": column(1)})
    workers["b3"].wait(1)
    workers["c4"].answering.set()
    # The second request may go to the free worker, although the first one is ahead in the queue.
    assert chosen([front.send({"X": column(1)}, wanted=["C"])]) == {4}
    assert not request.ended()
    workers["c3"].answering.set()
    assert chosen([request]) == {3}


def test_a_request_that_was_bound_while_it_waited_is_not_held_up_when_its_generation_is_closed(bench: Bench) -> None:
    front, workers = branches(bench)
    free = front.send({"X": column(1)}, wanted=["C"])
    request = front.send({"X": column(1)})
    workers["b3"].wait(1)
    route(bench, of("c3", 3, closed=True), of("c4", 4), name="c")
    workers["c3"].answering.set()
    assert chosen([request]) == {3}
    assert not free.ended()
    workers["c4"].answering.set()
    assert chosen([free]) == {4}


def hang_up_once(item: Worker) -> None:
    """Makes a worker close the connection at its next call."""
    served = item.handler

    def handler(call: Call) -> Answer:
        item.handler = served
        raise HangUp

    item.handler = handler


@pytest.mark.parametrize("others", [(), ("other",)])
def test_a_failed_call_is_retried_in_its_generation(bench: Bench, others: Sequence[str]) -> None:
    old, new = worker(bench, "old", 3), worker(bench, "new", 4)
    same = [worker(bench, name, 3) for name in others]
    route(bench, of("old", 3))
    front = bench.front()
    hang_up_once(old)
    request = bound(front, old)
    route(bench, of("old", 3), *(of(name, 3) for name in others), of("new", 4))
    old.answering.set()
    assert chosen([request]) == {3}
    assert not new.calls
    assert all(item.calls for item in same)


@pytest.mark.slow
@pytest.mark.parametrize("overload", ["refuse", "queue"])
def test_a_request_whose_generation_cannot_be_reached_fails_with_the_reason(bench: Bench, overload: str) -> None:
    old, new = worker(bench, "old", 3), worker(bench, "new", 4)
    route(bench, of("old", 3))
    front = bench.front(slo_ms=1000, overload=overload)
    request = bound(front, old)
    route(bench, of("old", 3), of("new", 4))
    old.kill()
    others = [front.send({"X": column(n)}) for n in range(3)]
    outcome = request.wait()
    assert outcome.blame == "worker"
    reason = "task t: none of its 1 workers of generation 3, to which the request is bound, can be reached"
    assert outcome.message.startswith(reason)
    assert chosen(others) == {4}
    assert new.calls


@pytest.mark.slow
@pytest.mark.parametrize("overload", ["refuse", "queue"])
def test_a_request_whose_generation_has_left_the_route_fails_with_the_reason(bench: Bench, overload: str) -> None:
    old = worker(bench, "old", 3)
    worker(bench, "new", 4)
    route(bench, of("old", 3))
    front = bench.front(slo_ms=500, overload=overload)
    request = bound(front, old)
    route(bench, of("new", 4))
    old.answering.set()
    assert "none of its 0 workers of generation 3" in request.wait().message


def count_items(bench: Bench, *names: str) -> dict[str, int]:
    """Starts workers and counts the items that each of them gets."""
    taken = dict.fromkeys(names, 0)
    for name in names:

        def handler(call: Call, name: str = name) -> dict[str, Array]:
            taken[name] += call.items
            return {"Y": call.inputs["X"]}

        bench.worker(name, handler)
    return taken


def shared(name: str, generation: int, share: float, **more: Any) -> dict[str, Any]:
    """Entry of a variant with a share; worker and variant have the same name."""
    return of(name, generation, variant=name, share=share, **more)


def test_shares_of_a_closed_generation_apply_among_its_variants(bench: Bench) -> None:
    taken = count_items(bench, "u", "v", "x")
    first = [shared("u", 3, 0.75), shared("v", 3, 0.25)]
    route(bench, *first)
    front = rows_front(bench)
    for item in bench.workers:
        item.answering.clear()
    request = front.send(rows(400))
    bench.workers[0].wait(1)
    route(bench, *({**item, "closed": True} for item in first), shared("x", 4, 1.0))
    for item in bench.workers:
        item.answering.set()
    others = [front.send(rows(1)) for _ in range(50)]
    for sent in (request, *others):
        assert sent.wait().failure is None
    assert abs(taken["u"] - 300) <= 3
    assert taken["u"] + taken["v"] == 400
    assert taken["x"] == 50


def test_a_request_does_not_wait_for_variants_of_other_generations_to_get_their_shares(bench: Bench) -> None:
    taken = count_items(bench, "u", "x", "y")
    route(bench, shared("u", 3, 0.1), shared("x", 4, 0.6), shared("y", 4, 0.3))
    front = rows_front(bench)
    requests = [front.send(rows(50)) for _ in range(3)]
    for request in requests:
        assert request.wait().failure is None
    assert taken["u"] and taken["x"] and taken["y"]


@pytest.mark.slow
def test_each_generation_counts_its_requests(bench: Bench) -> None:
    old, new = worker(bench, "old", 3), worker(bench, "new", 4)
    route(bench, of("old", 3), of("new", 4, closed=True))
    front = bench.front(slo_ms=500)
    for _ in range(3):
        front.ask({"X": column(1)})
    route(bench, of("old", 3, closed=True), of("new", 4))
    new.handler = lambda call: {}
    assert front.ask({"X": column(1)}).blame == "model"
    route(bench, of("old", 3), of("new", 4, closed=True))
    old.answering.clear()
    late = front.send({"X": column(1)})
    time.sleep(0.6)
    old.answering.set()
    late.wait()
    requests = "jigsaw_generation_requests_total"
    counts = {
        (generation, outcome): bench.engine.metric(requests, graph="g", generation=generation, outcome=outcome)
        for generation in ("3", "4")
        for outcome in ("met", "missed", "failed")
    }
    assert {key: count for key, count in counts.items() if count} == {
        ("3", "met"): 3,
        ("3", "missed"): 1,
        ("4", "failed"): 1,
    }
    assert bench.engine.count("jigsaw_generation_seconds", generation="3") == 4
    assert bench.engine.metric("jigsaw_generation_seconds", generation="3") > 0.6


def test_the_metrics_of_a_generation_end_when_no_route_names_it(bench: Bench) -> None:
    worker(bench, "old", 3)
    worker(bench, "new", 4)
    front = bench.front()
    for generations in ([3], [3, 4], [4]):
        route(bench, *(of("old" if generation == 3 else "new", generation) for generation in generations))
        front.ask({"X": column(1)})
        found = {series["labels"].get("generation") for series in bench.engine.series} - {None}
        assert found == {str(generation) for generation in generations}
