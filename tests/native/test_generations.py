"""Generations: while a graph changes from one generation to the next, one of them answers all parts of a request."""

import numpy as np
import pytest

from tests.native.conftest import Bench, column
from tests.native.core import Array, Request
from tests.native.generations import COLUMN, chosen, of, route, rows, rows_front, worker
from tests.native.specs import ONE, spec, task
from tests.native.test_flow import after
from tests.native.worker import Answer, Call, Refuse, Worker
from tests.waiting import eventually


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


def test_three_generations_share_the_requests(bench: Bench) -> None:
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


def changed(bench: Bench, *names: str) -> dict[str, Worker]:
    """Starts two generations of these tasks, and writes their routes. Returns the workers by name."""
    workers = {
        f"{name}{generation}": worker(bench, f"{name}{generation}", generation)
        for name in names
        for generation in (3, 4)
    }
    for name in names:
        route(bench, of(f"{name}3", 3, batch=2, slots=2), of(f"{name}4", 4, batch=2, slots=2), name=name)
    return workers


def test_one_generation_answers_tasks_in_sequence(bench: Bench) -> None:
    changed(bench, "a", "b")
    tasks = [after("a", "inputs.X"), after("b", "a.Y")]
    front = bench.engine.front(spec(tasks, outputs={"A": ("a.Y", ONE), "B": ("b.Y", ONE)}))
    assert chosen([front.send({"X": column(n)}) for n in range(100)]) == {3, 4}


def unhealthy(call: Call) -> Answer:
    raise Refuse(500, "Stub process is not healthy")


def test_a_generation_without_a_worker_for_a_later_task_gets_no_requests_that_need_the_task(bench: Bench) -> None:
    workers = changed(bench, "a", "b")
    workers["b4"].handler = unhealthy
    tasks = [after("a", "inputs.X"), after("b", "a.Y")]
    front = bench.engine.front(spec(tasks, outputs={"A": ("a.Y", ONE), "B": ("b.Y", ONE)}))
    lost: list[Request] = []

    def is_out_of_service() -> bool:
        lost.append(front.send({"X": column(1)}))
        return "b4" in bench.condemned()

    eventually(is_out_of_service)
    for request in lost:
        request.cancel()
    assert chosen([front.send({"X": column(n)}) for n in range(60)]) == {3}
    assert chosen([front.send({"X": column(n)}, wanted=["A"]) for n in range(60)]) == {3, 4}
    # No batch has requests of both kinds, unless its generation can finish them all.
    mixed = [front.send({"X": column(n)}, wanted=wanted) for n in range(60) for wanted in (["A"], ["A", "B"])]
    assert chosen(mixed[1::2]) == {3}
    assert chosen(mixed[::2]) <= {3, 4}
    # A generation that is alone on the routes gets them all the same: its worker is about to be replaced.
    for name in "ab":
        route(bench, of(f"{name}4", 4), name=name)
    waiting = front.send({"X": column(77)})
    eventually(lambda: any(77 in call.inputs["I0"] for call in workers["a4"].calls))
    waiting.cancel()


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
