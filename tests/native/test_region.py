"""Large tensors in shared memory."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tests.native import specs
from tests.native.conftest import Bench, double
from tests.native.core import Array, Engine, Front, eventually
from tests.native.worker import SECRET, SHARED_MEMORY, Answer, Call, HangUp, Refuse, Worker, good

ELEMENTS = 50_000
KIND = ("INT64", (ELEMENTS,))
SMALL = ("INT64", (2,))


@pytest.fixture
def prefix() -> str:
    return f"jigsaw-test-{os.getpid()}-"


@pytest.fixture
def bench(run_dir: Path, prefix: str) -> Iterator[Bench]:
    with ExitStack() as stack:
        with Engine(run_dir, SECRET, prefix) as engine:
            bench = Bench(engine, stack)
            yield bench
            for worker in bench.workers:
                worker.going.set()
        assert not files(prefix)


def files(prefix: str) -> list[Path]:
    return sorted(SHARED_MEMORY.glob(f"{prefix}*"))


def large(items: int = 1, start: int = 0) -> dict[str, Array]:
    return {"X": start + np.arange(items * ELEMENTS).reshape(items, -1), "K": np.zeros((items, 2), np.int64)}


def front_of(bench: Bench, output: specs.Type = KIND, *, retry: bool = True) -> Front:
    inputs = {"X": ("inputs.X", KIND), "K": ("inputs.K", SMALL)}
    made = specs.task(inputs=inputs, outputs={"Y": output}, retry=retry)
    return bench.engine.front(specs.spec([made], {"X": KIND, "K": SMALL}, {"Y": ("t.Y", output)}))


def ask(front: Front, items: int = 1, start: int = 0) -> None:
    inputs = large(items, start)
    assert (front.ask(inputs)["Y"] == 2 * inputs["X"]).all()


def settle(worker: Worker, front: Front, items: int = 1) -> None:
    """Sends requests until large tensors go through shared memory."""

    def shared() -> bool:
        ask(front, items)
        return bool(worker.calls and worker.calls[-1].shared)

    eventually(shared)


def test_large_tensors_go_through_shared_memory_and_small_ones_beside_it(bench: Bench, prefix: str) -> None:
    worker = bench.worker()
    bench.route("w")
    front = front_of(bench)
    settle(worker, front)
    assert not worker.calls[0].shared, "the first call waits for no shared memory"
    assert worker.calls[-1].shared == {"X", "Y"}
    assert {file.stat().st_mode & 0o777 for file in files(prefix)} == {0o600}
    assert worker.connections <= 2
    for n in range(5):
        ask(front, start=n)
    assert {call.shared for call in worker.calls} == {frozenset(), frozenset({"X", "Y"})}
    assert 1 <= len(worker.regions) <= 2


def test_a_region_that_is_too_small_makes_way(bench: Bench, prefix: str) -> None:
    worker = bench.worker()
    bench.route("w", batch=8, slots=2)
    front = front_of(bench)
    settle(worker, front)

    def made_way() -> bool:
        ask_twice(front, items=8)
        return "unregister" in dict(worker.orders)

    eventually(made_way)
    dropped = {name for verb, name in worker.orders if verb == "unregister"}
    assert dropped and not dropped & {file.name for file in files(prefix)}
    worker.calls.clear()
    settle(worker, front, items=8)


def ask_twice(front: Front, items: int) -> None:
    """Two requests at a time, for all connections to have one."""
    requests = [front.send(large(items, start)) for start in (0, 1)]
    for start, request in enumerate(requests):
        assert (request.wait()["Y"] == 2 * large(items, start)["X"]).all()


def test_each_connection_has_a_region_of_its_own(bench: Bench, prefix: str) -> None:
    worker = bench.worker()
    bench.route("w", batch=1, slots=3)
    front = front_of(bench)

    def two() -> bool:
        ask_twice(front, items=1)
        return len(worker.regions) > 1

    eventually(two)
    # One more takes calls while another registers.
    assert len(files(prefix)) <= worker.connections <= 4


def test_outputs_of_varying_shape_come_over_the_socket(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w")
    front = front_of(bench, ("INT64", (-1,)))
    settle(worker, front)
    assert worker.calls[-1].shared == {"X"}


def test_a_worker_that_starts_again_is_told_again(bench: Bench, prefix: str) -> None:
    bench.route("w")
    front = front_of(bench)
    for _ in range(2):
        with Worker(bench.run_dir, "w", double) as worker:
            settle(worker, front)
            assert worker.regions
    assert len(files(prefix)) <= 2


def test_a_region_of_a_call_that_went_wrong_is_not_used_again(bench: Bench, prefix: str) -> None:
    worker = bench.worker()
    bench.route("w")
    front = front_of(bench)
    settle(worker, front)
    before = files(prefix)
    fails = iter([True])

    def hang_up(call: Call) -> Answer:
        if next(fails, False):
            raise HangUp
        return double(call)

    worker.handler = hang_up
    ask(front)
    assert set(before) - set(files(prefix))
    worker.calls.clear()
    settle(worker, front)


@pytest.mark.parametrize("status", [400, 500])
def test_a_refused_request_does_not_cost_the_region(bench: Bench, prefix: str, status: int) -> None:
    worker = bench.worker()
    bench.route("w")
    front = front_of(bench)
    settle(worker, front)
    before = files(prefix)

    def refuse(call: Call) -> Answer:
        raise Refuse(status, "no")

    worker.handler = refuse
    assert front.ask(large()).message == "task t: worker w: no"
    worker.handler = double
    ask(front)
    assert files(prefix) == before


def test_where_a_worker_takes_no_shared_memory_sockets_do(bench: Bench, prefix: str) -> None:
    worker = bench.worker()
    worker.secret = "another secret"
    bench.route("w")
    front = front_of(bench)
    for n in range(4):
        ask(front, start=n)
    assert len(worker.orders) == 1
    assert not any(call.shared for call in worker.calls)
    assert not files(prefix)
    complaints = [line for line in bench.engine.logs if "shared memory" in line]
    assert complaints == [
        "warning: large tensors of worker w go over its socket for 60 s: it takes no shared memory: This API is "
        "restricted"
    ]


def test_what_one_worker_refuses_others_still_get(bench: Bench) -> None:
    refusing, other = bench.worker("a"), bench.worker("b")
    refusing.secret = "another secret"
    bench.route("a", "b", batch=1)
    front = front_of(bench)

    def shared() -> bool:
        # One at a time would all go to the worker that was faster at first.
        for request in front.send_many(4, large()):
            assert request.wait().failure is None
        return bool(other.calls and other.calls[-1].shared)

    eventually(shared)
    assert not refusing.regions


def test_a_worker_that_does_not_answer_a_registration(bench: Bench, prefix: str) -> None:
    worker = Silent(bench.run_dir, "w", double)
    with worker:
        bench.route("w")
        front = front_of(bench)
        for n in range(3):
            ask(front, start=n)
        eventually(lambda: any("it did not take shared memory in time" in line for line in bench.engine.logs))
        eventually(lambda: not files(prefix))
        ask(front)
        worker.going.set()


class Silent(Worker):
    """Does not answer orders about shared memory."""

    def _change_region(self, name: str, verb: str, fields: dict[str, str], asked: dict[str, object]) -> bytes:
        self.orders.append((verb, name))
        return b""


def test_a_region_that_the_worker_forgot_is_no_failure_of_the_request(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w")
    front = front_of(bench)
    settle(worker, front)
    worker.regions.clear()
    ask(front)
    worker.calls.clear()
    settle(worker, front)


def test_a_worker_that_leaves_the_route_forgets_the_regions(bench: Bench, prefix: str) -> None:
    worker, other = bench.worker("a"), bench.worker("b")
    bench.route("a")
    front = front_of(bench)
    settle(worker, front)
    bench.route("b")
    settle(other, front)
    eventually(lambda: not worker.regions)
    eventually(lambda: {file.name for file in files(prefix)} == set(other.regions))


def test_a_front_that_ends_takes_the_regions_with_it(bench: Bench, prefix: str) -> None:
    worker = bench.worker()
    bench.route("w")
    front = front_of(bench)
    settle(worker, front)
    front.close()
    eventually(lambda: not files(prefix) and not worker.regions)


def test_without_a_prefix_all_goes_over_sockets(run_dir: Path) -> None:
    with ExitStack() as stack, Engine(run_dir, SECRET) as engine:
        bench = Bench(engine, stack)
        worker = bench.worker()
        bench.route("w")
        front = front_of(bench)
        for n in range(3):
            ask(front, start=n)
        assert not worker.orders
        front.close()


def test_a_name_that_cannot_be_made_leaves_sockets(run_dir: Path) -> None:
    with ExitStack() as stack, Engine(run_dir, SECRET, "no/such/folder/") as engine:
        bench = Bench(engine, stack)
        worker = bench.worker()
        bench.route("w")
        front = front_of(bench)
        for n in range(3):
            ask(front, start=n)
        assert not worker.orders
        said = "warning: large tensors of worker w go over its socket for 60 s: no shared memory could be made"
        eventually(lambda: said in engine.logs)
        front.close()


def test_an_answer_is_no_longer_than_what_was_asked_for(bench: Bench) -> None:
    """A worker that describes more in shared memory than there is room for."""
    worker = bench.worker()
    bench.route("w")
    # A second try might go over the socket, and be answered.
    front = front_of(bench, retry=False)
    settle(worker, front)
    whole = worker.handler

    def lie(call: Call) -> Answer:
        shape = [1, ELEMENTS, 100]
        return good([{"name": "Y", "datatype": "INT64", "shape": shape}]) if call.shared else double(call)

    worker.handler = lie
    outcomes = []

    def noticed() -> bool:
        outcomes.append(front.ask(large()))
        return outcomes[-1].failure is not None

    eventually(noticed)
    outcome = outcomes[-1]
    assert outcome.blame == "worker"
    assert "output Y is not where it was asked for" in outcome.message
    worker.handler = whole
    ask(front)


def test_what_is_larger_than_any_region_goes_over_the_socket(bench: Bench) -> None:
    """Calls of several rounds of batches, large and small by turns."""
    worker = bench.worker()
    bench.route("w", batch=16)
    front = front_of(bench)
    for items in (1, 5, 16, 2, 16, 1, 9):
        ask(front, items)
    assert any(call.shared for call in worker.calls)
