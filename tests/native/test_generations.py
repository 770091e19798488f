"""Generations: while a graph changes from one generation to the next, one of them answers all parts of a request."""

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest

from jigsaw_triton.controller.fleet.drain import drained as drain
from tests.native import specs
from tests.native.conftest import Bench, column
from tests.native.core import Array, Front, Outcome, Request
from tests.native.specs import ONE, entry, spec, task
from tests.native.test_flow import after
from tests.native.worker import Answer, Call, HangUp, Worker

PATIENCE_S = 30.0
COLUMN = ("INT64", (-1, 1))


def worker(bench: Bench, name: str, generation: int) -> Worker:
    """Starts a worker that returns the number of its generation as every output, after a short random time."""
    order = np.random.default_rng(generation)

    def handler(call: Call) -> dict[str, Array]:
        time.sleep(order.random() / 1000)
        return {output: np.full((call.items, 1), generation, np.int64) for output in call.outputs}

    return bench.worker(name, handler)


def route(bench: Bench, *entries: dict[str, Any], name: str = "t") -> None:
    specs.write_route(bench.run_dir, *entries, name=name)


def of(name: str, *generations: int, closed: bool = False, batch: int = 1, **more: Any) -> dict[str, Any]:
    """Entry of a route that may answer requests of these generations."""
    return entry(name, generations=generations, closed=closed, batch=batch, **more)


def lock(bench: Bench, generation: int, timeout_s: float = 0.05) -> AbstractContextManager[bool]:
    """Locks a generation as the controller does before it removes the generation."""
    return drain(bench.run_dir / "generations" / f"g.{generation}", timeout_s)


def is_used(bench: Bench, generation: int) -> bool:
    """Returns true if a request is bound to the generation."""
    with lock(bench, generation) as locked:
        return not locked


def rows_front(bench: Bench) -> Front:
    """Front of a task that iterates over the rows of its input."""
    made = task(mode="rows", iterated=["X"])
    return bench.engine.front(spec([made], {"X": COLUMN}, {"Y": ("t.Y", COLUMN)}))


def rows(count: int) -> dict[str, Array]:
    return {"X": np.zeros((1, count, 1), np.int64)}


def generations_of(outcome: Outcome) -> set[int]:
    """Generations whose workers have answered a part of a request."""
    assert outcome.failure is None, outcome.failure
    return {int(value) for array in outcome.outputs.values() for value in array.ravel()}


def chosen(requests: Sequence[Request]) -> set[int]:
    """Generations that have answered requests, each of which was answered by one."""
    found = [generations_of(request.wait()) for request in requests]
    assert all(len(generations) == 1 for generations in found), found
    return set.union(*found)


@pytest.mark.parametrize(("old", "new"), [(3, 4), (0, 64), (7, 100_000)])
def test_one_generation_answers_all_rows_of_a_request(bench: Bench, old: int, new: int) -> None:
    worker(bench, "old", old)
    worker(bench, "new", new)
    route(bench, of("old", old, batch=4, slots=2), of("new", new, batch=3, slots=2))
    front = rows_front(bench)
    requests = [front.send(rows(1 + 7 * n % 40)) for n in range(80)]
    assert chosen(requests) == {old, new}


def test_any_number_of_generations_can_follow_each_other(bench: Bench) -> None:
    for name in ("one", "other"):
        worker(bench, name, {"one": 1, "other": 2}[name])
    front = None
    for number in range(70):
        route(bench, of("one", number, batch=4), of("other", number + 1, batch=4))
        front = front or rows_front(bench)
        chosen([front.send(rows(12)) for _ in range(2)])


def test_three_generations(bench: Bench) -> None:
    for generation in (3, 4, 5):
        worker(bench, f"w{generation}", generation)
    route(bench, *(of(f"w{generation}", generation, batch=4) for generation in (3, 4, 5)))
    front = rows_front(bench)
    assert chosen([front.send(rows(1 + 7 * n % 40)) for n in range(80)]) == {3, 4, 5}


def test_one_generation_answers_all_items_of_a_batch_that_is_split(bench: Bench) -> None:
    worker(bench, "old", 3)
    worker(bench, "new", 4)
    route(bench, of("old", 3), of("new", 4))
    front = bench.front(split=True)
    assert chosen([front.send({"X": column(*range(1 + n % 7))}) for n in range(60)]) == {3, 4}


def changed(bench: Bench, *names: str) -> None:
    """Starts two generations of these tasks, and writes their routes."""
    for name in names:
        worker(bench, f"{name}3", 3)
        worker(bench, f"{name}4", 4)
        route(bench, of(f"{name}3", 3, batch=2, slots=2), of(f"{name}4", 4, batch=2, slots=2), name=name)


def test_one_generation_answers_tasks_in_sequence(bench: Bench) -> None:
    changed(bench, "a", "b")
    tasks = [after("a", "inputs.X"), after("b", "a.Y")]
    front = bench.engine.front(spec(tasks, outputs={"A": ("a.Y", ONE), "B": ("b.Y", ONE)}))
    assert chosen([front.send({"X": column(n)}) for n in range(100)]) == {3, 4}


def test_a_request_stays_with_the_generations_of_an_unchanged_worker(bench: Bench) -> None:
    bench.worker("a", lambda call: {"Y": call.inputs["I0"]})
    route(bench, of("a", 3, 4), name="a")
    for generation in (3, 4, 5):
        worker(bench, f"b{generation}", generation)
    route(bench, *(of(f"b{generation}", generation) for generation in (3, 4, 5)), name="b")
    tasks = [after("a", "inputs.X"), after("b", "a.Y")]
    front = bench.engine.front(spec(tasks, outputs={"B": ("b.Y", ONE)}))
    assert chosen([front.send({"X": column(n)}) for n in range(60)]) == {3, 4}


@pytest.mark.parametrize("tagged", [True, False])
def test_one_generation_answers_parallel_tasks_after_a_task_that_has_not_changed(bench: Bench, tagged: bool) -> None:
    changed(bench, "b", "c", "d")
    bench.worker("a", lambda call: {"Y": call.inputs["I0"]})
    route(bench, of("a", *((3, 4) if tagged else ()), batch=4), name="a")
    tasks = [after("a", "inputs.X"), after("b", "a.Y"), after("c", "a.Y"), after("d", "b.Y", "c.Y")]
    outputs = {name.upper(): (f"{name}.Y", ONE) for name in "bcd"}
    front = bench.engine.front(spec(tasks, outputs=outputs))
    assert chosen([front.send({"X": column(n)}) for n in range(100)]) == {3, 4}


def test_one_generation_answers_nested_rows(bench: Bench) -> None:
    """The outer task makes two rows of each row that it gets."""
    changed(bench, "b")
    for generation in (3, 4):

        def twice(call: Call, generation: int = generation) -> dict[str, Array]:
            return {"R": np.full((call.items, 2, 1), generation, np.int64)}

        bench.worker(f"a{generation}", twice)
    route(bench, of("a3", 3, batch=4), of("a4", 4, batch=4), name="a")
    tasks = [
        task("a", {"X": ("inputs.X", ONE)}, {"R": COLUMN}, mode="rows", iterated=["X"], yields=["R"]),
        task("b", {"X": ("a.R", ONE)}, mode="rows", iterated=["X"]),
    ]
    outputs = {"A": ("a.R", COLUMN), "B": ("b.Y", COLUMN)}
    front = bench.engine.front(spec(tasks, {"X": COLUMN}, outputs, split=True))
    assert chosen([front.send(rows(1 + n % 6)) for n in range(60)]) == {3, 4}


def bound(bench: Bench, front: Front, old: Worker) -> Request:
    """Sends a request of two items, the first of which keeps the worker busy until `old.answering` is set."""
    old.answering.clear()
    request = front.send({"X": column(-1, -1)})
    old.wait(1)
    return request


def test_a_closed_generation_finishes_its_requests_and_gets_no_new_ones(bench: Bench) -> None:
    workers = {
        f"{name}{generation}": worker(bench, f"{name}{generation}", generation)
        for name in "ab"
        for generation in (3, 4)
    }
    for name in "ab":
        route(bench, of(f"{name}3", 3), name=name)
    tasks = [after("a", "inputs.X"), after("b", "a.Y")]
    front = bench.engine.front(spec(tasks, outputs={"A": ("a.Y", ONE), "B": ("b.Y", ONE)}))
    workers["a3"].answering.clear()
    old = front.send({"X": column(1)})
    workers["a3"].wait(1)
    for name in "ab":
        route(bench, of(f"{name}3", 3, closed=True), of(f"{name}4", 4), name=name)
    assert chosen([front.send({"X": column(n)}) for n in range(20)]) == {4}
    workers["a3"].answering.set()
    assert chosen([old]) == {3}
    assert len(workers["a3"].calls) == len(workers["b3"].calls) == 1


def test_a_closed_entry_takes_no_request_that_an_open_one_may_take(bench: Bench) -> None:
    """An unchanged worker that answers requests of a closed generation does not open it for new requests."""
    closed, open_ = worker(bench, "closed", 3), worker(bench, "open", 4)
    route(bench, of("closed", 3, closed=True), of("open", 3, 4))
    front = bench.front()
    open_.answering.clear()
    requests = [front.send({"X": column(n)}) for n in range(3)]
    open_.wait(1)
    assert not requests[1].ended(0.05)
    open_.answering.set()
    assert chosen(requests) == {4}
    assert not closed.calls


def test_without_open_entries_closed_ones_serve(bench: Bench) -> None:
    worker(bench, "w", 3)
    route(bench, of("w", 3, closed=True))
    assert chosen([bench.front().send({"X": column(1)})]) == {3}


def test_a_generation_is_locked_while_a_request_uses_it(bench: Bench) -> None:
    old = worker(bench, "w", 3)
    route(bench, of("w", 3))
    front = bench.front()
    request = bound(bench, front, old)
    path = bench.run_dir / "generations" / "g.3"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert is_used(bench, 3)
    old.answering.set()
    assert chosen([request]) == {3}
    assert not is_used(bench, 3)


def test_a_generation_is_locked_until_the_last_request_of_all_fronts_has_ended(bench: Bench) -> None:
    workers = [worker(bench, name, 3) for name in "abc"]
    route(bench, *(of(name, 3) for name in "abc"))
    fronts = [bench.front(), bench.front()]
    for item in workers:
        item.answering.clear()
    requests = [fronts[n % 2].send({"X": column(n)}) for n in range(3)]
    for item in workers:
        item.wait(1)
    for item in workers:
        assert is_used(bench, 3)
        item.answering.set()
    assert chosen(requests) == {3}
    assert not is_used(bench, 3)


def test_a_split_request_uses_its_generation_until_its_last_item_is_answered(bench: Bench) -> None:
    """Items that have not been sent yet are bound to the generation, too."""
    old = worker(bench, "w", 3)
    route(bench, of("w", 3))
    front = bench.front(split=True)
    old.answering.clear()
    request = front.send({"X": column(*range(4))})
    gate = threading.Semaphore(0)

    def one_by_one(call: Call) -> dict[str, Array]:
        gate.acquire()
        return {"Y": call.inputs["X"]}

    old.handler = one_by_one
    old.answering.set()
    for calls in range(1, 5):
        old.wait(calls)
        assert is_used(bench, 3)
        gate.release()
    request.wait()
    assert not is_used(bench, 3)


def test_a_failed_request_no_longer_uses_its_generation(bench: Bench) -> None:
    old = worker(bench, "w", 3)
    route(bench, of("w", 3))
    front = bench.engine.front(spec([task(retry=False)]))

    def hang_up(call: Call) -> Answer:
        raise HangUp

    old.handler = hang_up
    assert front.ask({"X": column(1)}).blame == "worker"
    assert not is_used(bench, 3)


@pytest.mark.parametrize("generations", [(), (3, 4)])
def test_a_request_that_several_generations_may_answer_locks_none(bench: Bench, generations: Sequence[int]) -> None:
    same = worker(bench, "w", 3)
    route(bench, of("w", *generations))
    request = bound(bench, bench.front(), same)
    assert not is_used(bench, 3)
    assert not is_used(bench, 4)
    same.answering.set()
    request.wait()


def test_new_requests_avoid_a_generation_that_the_controller_locks(bench: Bench) -> None:
    old, new = worker(bench, "old", 3), worker(bench, "new", 4)
    route(bench, of("old", 3), of("new", 4))
    front = bench.front()
    with lock(bench, 3) as locked:
        assert locked
        assert chosen([front.send({"X": column(n)}) for n in range(20)]) == {4}
        assert not old.calls
    with lock(bench, 4) as locked:
        assert locked
        new.calls.clear()
        assert chosen([front.send({"X": column(n)}) for n in range(20)]) == {3}
        assert not new.calls


def test_requests_wait_while_the_controller_locks_the_only_generation(bench: Bench) -> None:
    old = worker(bench, "w", 3)
    route(bench, of("w", 3))
    front = bench.front()
    with lock(bench, 3) as locked:
        assert locked
        request = front.send({"X": column(1)})
        assert not request.ended(0.1)
        assert not old.calls
    assert chosen([request]) == {3}


def test_a_generation_is_retired_under_load(bench: Bench) -> None:
    """A change closes a generation and waits for its requests. A rollback then opens it again."""
    old, new = worker(bench, "old", 3), worker(bench, "new", 4)
    route(bench, of("old", 3, batch=2))
    front = rows_front(bench)
    requests = []
    for _ in range(15):
        requests += [front.send(rows(1 + n)) for n in range(8)]
        route(bench, of("old", 3, closed=True), of("new", 4))
        requests += [front.send(rows(1 + n)) for n in range(8)]
        with lock(bench, 3, PATIENCE_S) as locked:
            assert locked
            calls = len(old.calls)
            requests += [front.send(rows(1 + n)) for n in range(8)]
            route(bench, of("new", 4))
            assert len(old.calls) == calls
        route(bench, of("old", 3), of("new", 4, closed=True))
    assert chosen(requests) == {3, 4}
    assert old.calls and new.calls


def test_a_request_whose_workers_are_busy_does_not_hold_up_others(bench: Bench) -> None:
    old = worker(bench, "old", 3)
    route(bench, of("old", 3))
    front = bench.front()
    request = bound(bench, front, old)
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
    request = bound(bench, front, old)
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
    request = bound(bench, front, old)
    route(bench, of("old", 3), *(of(name, 3) for name in others), of("new", 4))
    old.answering.set()
    assert chosen([request]) == {3}
    assert not new.calls
    assert all(item.calls for item in same)


@pytest.mark.parametrize("overload", ["refuse", "queue"])
def test_a_request_whose_generation_cannot_be_reached_fails_with_the_reason(bench: Bench, overload: str) -> None:
    old, new = worker(bench, "old", 3), worker(bench, "new", 4)
    route(bench, of("old", 3))
    front = bench.front(slo_ms=1000, overload=overload)
    request = bound(bench, front, old)
    route(bench, of("old", 3), of("new", 4))
    old.kill()
    others = [front.send({"X": column(n)}) for n in range(3)]
    outcome = request.wait()
    assert outcome.blame == "worker"
    reason = "task t: none of its 1 workers of generation 3, to which the request is bound, can be reached"
    assert outcome.message.startswith(reason)
    assert chosen(others) == {4}
    assert new.calls


@pytest.mark.parametrize("overload", ["refuse", "queue"])
def test_a_request_whose_generation_has_left_the_route_fails_with_the_reason(bench: Bench, overload: str) -> None:
    old = worker(bench, "old", 3)
    worker(bench, "new", 4)
    route(bench, of("old", 3))
    front = bench.front(slo_ms=500, overload=overload)
    request = bound(bench, front, old)
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
