"""Weights of generations: the share of the requests that each of two generations answers during a canary."""

import threading
import time
from typing import Any

import pytest

from tests.native import specs
from tests.native.conftest import Bench, column
from tests.native.core import Request
from tests.native.generations import chosen, generations_of, is_unused, lock, of, route, rows, rows_front, worker
from tests.native.specs import ONE, spec
from tests.native.test_flow import after
from tests.waiting import eventually

WEIGHTS = {3: 0.8, 4: 0.2}
COUNT = 400


def weighted(name: str, *generations: int, batch: int = 8, slots: int = 4, **more: Any) -> dict[str, Any]:
    """Entry whose generations have the weights of `WEIGHTS`."""
    return of(name, *generations, batch=batch, slots=slots, weights=[WEIGHTS[g] for g in generations], **more)


def counts(requests: list[Request]) -> dict[int, int]:
    """Number of requests that each generation has answered, each of them alone."""
    found = [generations_of(request.wait()) for request in requests]
    assert all(len(generations) == 1 for generations in found), found
    return {generation: found.count({generation}) for generation in WEIGHTS}


def assert_weighted(found: dict[int, int]) -> None:
    """Checks the shares to six standard deviations of the binomial: one run in 500 million fails by chance."""
    total = sum(found.values())
    deviation = (total * WEIGHTS[3] * WEIGHTS[4]) ** 0.5
    assert abs(found[4] - total * WEIGHTS[4]) < 6 * deviation, found


@pytest.mark.parametrize("split", [False, True])
def test_generations_answer_requests_by_their_weights(bench: Bench, split: bool) -> None:
    worker(bench, "old", 3)
    worker(bench, "new", 4)
    route(bench, weighted("old", 3), weighted("new", 4))
    front = bench.front(split=split)
    assert_weighted(counts([front.send({"X": column(n, n, n)}) for n in range(COUNT)]))


def test_requests_in_sequence_follow_the_weights(bench: Bench) -> None:
    """Without weights, the worker that is free first would decide."""
    worker(bench, "old", 3)
    worker(bench, "new", 4)
    route(bench, weighted("old", 3), weighted("new", 4))
    front = rows_front(bench)
    found = [front.ask(rows(3)) for _ in range(COUNT)]
    assert_weighted({g: sum(generations_of(outcome) == {g} for outcome in found) for g in WEIGHTS})


def test_one_generation_answers_all_tasks_after_a_task_that_has_not_changed(bench: Bench) -> None:
    bench.worker("a", lambda call: {"Y": call.inputs["I0"]})
    route(bench, weighted("a", 3, 4), name="a")
    for name in ("b", "c"):
        for generation in WEIGHTS:
            worker(bench, f"{name}{generation}", generation)
        route(bench, *(weighted(f"{name}{generation}", generation) for generation in WEIGHTS), name=name)
    tasks = [after("a", "inputs.X"), after("b", "a.Y"), after("c", "b.Y")]
    front = bench.engine.front(spec(tasks, outputs={"B": ("b.Y", ONE), "C": ("c.Y", ONE)}))
    assert_weighted(counts([front.send({"X": column(n)}) for n in range(COUNT)]))
    metric = "jigsaw_generation_requests_total"
    total = sum(bench.engine.metric(metric, graph="g", generation=str(g), outcome="met") for g in WEIGHTS)
    assert total == COUNT


def test_a_busy_generation_keeps_its_requests_and_delays_no_others(bench: Bench) -> None:
    worker(bench, "old", 3)
    busy = worker(bench, "new", 4)
    route(bench, weighted("old", 3), weighted("new", 4, batch=1, slots=1))
    front = bench.front()
    busy.answering.clear()
    requests = [front.send({"X": column(n)}) for n in range(COUNT)]
    metric = "jigsaw_generation_requests_total"
    eventually(lambda: bench.engine.metric(metric, generation="3", outcome="met") > COUNT / 2)
    busy.answering.set()
    assert_weighted(counts(requests))


def test_a_failure_counts_for_the_generation_to_which_the_request_is_bound(bench: Bench) -> None:
    worker(bench, "old", 3)
    worker(bench, "new", 4).handler = lambda call: {}
    route(bench, weighted("old", 3), weighted("new", 4))
    front = bench.front()
    outcomes = [request.wait() for request in [front.send({"X": column(n)}) for n in range(COUNT)]]
    failed = sum(outcome.failure is not None for outcome in outcomes)
    assert_weighted({3: COUNT - failed, 4: failed})
    metric = "jigsaw_generation_requests_total"
    assert bench.engine.metric(metric, generation="4", outcome="failed") == failed
    assert bench.engine.metric(metric, generation="3", outcome="failed") == 0


@pytest.mark.slow
def test_the_other_generation_answers_while_a_task_has_no_worker_of_one(bench: Bench) -> None:
    for name in ("a", "b"):
        worker(bench, f"{name}3", 3)
        route(bench, *(weighted(f"{name}{generation}", generation) for generation in WEIGHTS), name=name)
    worker(bench, "a4", 4)
    bench.worker("b4").kill()
    tasks = [after("a", "inputs.X"), after("b", "a.Y")]
    outputs = {"A": ("a.Y", ONE), "B": ("b.Y", ONE)}
    hasty, front = (bench.engine.front(spec(tasks, outputs=outputs, slo_ms=slo_ms)) for slo_ms in (2500.0, 60000.0))
    in_time = False
    while not in_time:
        # A request to the dead worker shows that it is dead. It fails between two retries, 0.2 s before the next.
        assert any(hasty.ask({"X": column(n)}).failure is not None for n in range(COUNT))
        began_s = time.monotonic()
        sent = [front.send({"X": column(n)}) for n in range(20)]
        in_time = time.monotonic() - began_s < 0.1
        found = chosen(sent) if in_time else None
    assert found == {3}


def test_a_closed_generation_gets_no_requests_by_its_weight(bench: Bench) -> None:
    worker(bench, "old", 3)
    closed = worker(bench, "new", 4)
    route(bench, weighted("old", 3), weighted("new", 4, closed=True))
    front = bench.front()
    assert chosen([front.send({"X": column(n)}) for n in range(50)]) == {3}
    assert not closed.calls


def test_a_generation_that_the_controller_locks_gets_no_requests_by_its_weight(bench: Bench) -> None:
    worker(bench, "old", 3)
    worker(bench, "new", 4)
    route(bench, weighted("old", 3), weighted("new", 4))
    front = bench.front()
    with lock(bench, 4) as locked:
        assert locked
        assert chosen([front.send({"X": column(n)}) for n in range(50)]) == {3}


def test_weights_end_with_the_route_that_has_them(bench: Bench) -> None:
    worker(bench, "old", 3)
    worker(bench, "new", 4)
    route(bench, weighted("old", 3), weighted("new", 4))
    front = bench.front()
    front.ask({"X": column(1)})
    route(bench, of("new", 4))
    front.ask({"X": column(1)})  # The task has read the new route once this is answered.
    assert chosen([front.send({"X": column(n)}) for n in range(50)]) == {4}
    assert is_unused(bench, 3) and is_unused(bench, 4)


def test_weights_change_under_load(bench: Bench) -> None:
    """A request that is bound by the old route while the route changes is answered by one generation, too."""
    worker(bench, "old", 3)
    worker(bench, "new", 4)
    route(bench, of("old", 3, batch=8, slots=4))
    front = rows_front(bench)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            route(bench, weighted("old", 3), weighted("new", 4))
            route(bench, of("old", 3, batch=8, slots=4), of("new", 4, batch=8, slots=4, closed=True))
            with lock(bench, 4) as locked:
                assert locked
                route(bench, of("old", 3, batch=8, slots=4))

    thread = threading.Thread(target=change)
    thread.start()
    found: set[int] = set()
    try:
        for _ in range(20):
            found |= chosen([front.send(rows(1 + n % 20)) for n in range(20)])
    finally:
        stop.set()
        thread.join()
    assert found == {3, 4}


@pytest.mark.parametrize("weights", [[0.5], [0.5, 1.5], [0.5, -0.1], [0.5, "a"], 1])
def test_invalid_weights_keep_the_previous_route(bench: Bench, weights: object) -> None:
    worker(bench, "old", 3)
    route(bench, of("old", 3))
    front = bench.front()
    front.ask({"X": column(1)})
    specs.write_route(bench.run_dir, of("new", 3, 4, weights=weights))
    assert chosen([front.send({"X": column(1)})]) == {3}
    (complaint,) = (line for line in bench.engine.logs if "cannot be read" in line)
    assert "weights" in complaint
