"""Locks of generations, by which the controller waits for the requests that are bound to one."""

import threading
from collections.abc import Sequence

import pytest

from tests.native.conftest import Bench, column
from tests.native.core import Array
from tests.native.generations import (
    bound,
    chosen,
    is_unused,
    is_used,
    lock,
    of,
    route,
    rows,
    rows_front,
    worker,
)
from tests.native.specs import spec, task
from tests.native.worker import Answer, Call, HangUp


def test_a_generation_is_locked_while_a_request_uses_it(bench: Bench) -> None:
    old = worker(bench, "w", 3)
    route(bench, of("w", 3))
    front = bench.front()
    request = bound(front, old)
    path = bench.run_dir / "generations" / "g.3"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert is_used(bench, 3)
    old.answering.set()
    assert chosen([request]) == {3}
    assert is_unused(bench, 3)


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
    assert is_unused(bench, 3)


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
    assert is_unused(bench, 3)


def test_a_failed_request_no_longer_uses_its_generation(bench: Bench) -> None:
    old = worker(bench, "w", 3)
    route(bench, of("w", 3))
    front = bench.engine.front(spec([task(retry=False)]))

    def hang_up(call: Call) -> Answer:
        raise HangUp

    old.handler = hang_up
    assert front.ask({"X": column(1)}).blame == "worker"
    assert is_unused(bench, 3)


@pytest.mark.parametrize("generations", [(), (3, 4)])
def test_a_request_that_several_generations_may_answer_locks_none(bench: Bench, generations: Sequence[int]) -> None:
    same = worker(bench, "w", 3)
    route(bench, of("w", *generations))
    request = bound(bench.front(), same)
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


@pytest.mark.slow
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
        with lock(bench, 3) as locked:
            assert locked
            calls = len(old.calls)
            requests += [front.send(rows(1 + n)) for n in range(8)]
            route(bench, of("new", 4))
            assert len(old.calls) == calls
        route(bench, of("old", 3), of("new", 4, closed=True))
    assert chosen(requests) == {3, 4}
    assert old.calls and new.calls
