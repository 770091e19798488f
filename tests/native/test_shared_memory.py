"""Large tensors in shared memory, and over the socket where a worker does not accept shared memory."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tests.native import specs
from tests.native.conftest import Bench, double
from tests.native.core import Array, Engine, Front
from tests.native.worker import SECRET, SHARED_MEMORY, Answer, Call, HangUp, Refuse, Worker, good
from tests.waiting import eventually

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
                worker.answering.set()
        assert not files(prefix)


def files(prefix: str) -> list[Path]:
    return sorted(SHARED_MEMORY.glob(f"{prefix}*"))


def large(items: int = 1, start: int = 0) -> dict[str, Array]:
    return {"X": start + np.arange(items * ELEMENTS).reshape(items, -1), "K": np.zeros((items, 2), np.int64)}


def make_front(bench: Bench, output: specs.Type = KIND, *, retry: bool = True) -> Front:
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


def test_large_tensors_use_shared_memory_and_small_ones_the_socket(bench: Bench, prefix: str) -> None:
    worker = bench.worker()
    bench.route("w")
    front = make_front(bench)
    settle(worker, front)
    assert not worker.calls[0].shared, "the first call does not wait for shared memory"
    assert worker.calls[-1].shared == {"X", "Y"}
    assert {file.stat().st_mode & 0o777 for file in files(prefix)} == {0o600}
    assert worker.connections <= 2
    for n in range(5):
        ask(front, start=n)
    assert {call.shared for call in worker.calls} == {frozenset(), frozenset({"X", "Y"})}
    assert 1 <= len(worker.regions) <= 2


def test_a_remote_worker_gets_no_shared_memory(bench: Bench, prefix: str) -> None:
    remote, near = bench.worker("remote"), bench.worker("near")
    bench.route("remote", remote=True)
    front = make_front(bench)
    for n in range(20):
        ask(front, start=n)
    bench.route("near")
    settle(near, front)
    assert len(remote.calls) == 20
    assert not any(call.shared for call in remote.calls)
    assert not remote.region_requests


def test_a_region_that_is_too_small_is_replaced(bench: Bench, prefix: str) -> None:
    worker = bench.worker()
    bench.route("w", batch=8, slots=2)
    front = make_front(bench)
    settle(worker, front)

    def replaced() -> bool:
        ask_twice(front, items=8)
        return "unregister" in dict(worker.region_requests)

    eventually(replaced)
    dropped = {name for verb, name in worker.region_requests if verb == "unregister"}
    eventually(lambda: not dropped & {file.name for file in files(prefix)})
    worker.calls.clear()
    settle(worker, front, items=8)


def ask_twice(front: Front, items: int) -> None:
    """Sends two concurrent requests, so that more than one connection is used."""
    requests = [front.send(large(items, start)) for start in (0, 1)]
    for start, request in enumerate(requests):
        assert (request.wait()["Y"] == 2 * large(items, start)["X"]).all()


def test_each_connection_has_its_own_region(bench: Bench, prefix: str) -> None:
    worker = bench.worker()
    bench.route("w", batch=1, slots=3)
    front = make_front(bench)

    def two() -> bool:
        ask_twice(front, items=1)
        return len(worker.regions) > 1

    eventually(two)
    # Another connection takes calls while one registers its region.
    assert len(files(prefix)) <= worker.connections <= 4


def test_outputs_of_varying_shape_use_the_socket(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w")
    front = make_front(bench, ("INT64", (-1,)))
    settle(worker, front)
    assert worker.calls[-1].shared == {"X"}


def test_regions_are_registered_again_after_a_restart(bench: Bench, prefix: str) -> None:
    bench.route("w")
    front = make_front(bench)
    for _ in range(2):
        with Worker(bench.run_dir, "w", double) as worker:
            settle(worker, front)
            assert worker.regions
    eventually(lambda: len(files(prefix)) <= 2)


def test_the_region_of_a_failed_call_is_not_reused(bench: Bench, prefix: str) -> None:
    worker = bench.worker()
    bench.route("w")
    front = make_front(bench)
    settle(worker, front)
    before = files(prefix)
    fails = iter([True])

    def hang_up(call: Call) -> Answer:
        if next(fails, False):
            raise HangUp
        return double(call)

    worker.handler = hang_up
    ask(front)
    eventually(lambda: bool(set(before) - set(files(prefix))))
    worker.calls.clear()
    settle(worker, front)


@pytest.mark.parametrize("status", [400, 500])
def test_a_rejected_call_keeps_its_region(bench: Bench, prefix: str, status: int) -> None:
    worker = bench.worker()
    bench.route("w")
    front = make_front(bench)
    settle(worker, front)
    before = files(prefix)

    def refuse(call: Call) -> Answer:
        raise Refuse(status, "no")

    worker.handler = refuse
    assert front.ask(large()).message == "task t: worker w: no"
    worker.handler = double
    ask(front)
    assert files(prefix) == before


def test_a_worker_that_refuses_shared_memory_gets_tensors_over_the_socket(bench: Bench, prefix: str) -> None:
    worker = bench.worker()
    worker.secret = "another secret"
    bench.route("w")
    front = make_front(bench)

    def asked_for_a_region() -> bool:
        ask(front)
        return bool(worker.region_requests)

    eventually(asked_for_a_region)
    eventually(lambda: any("shared memory" in line for line in bench.engine.logs))
    for n in range(4):
        ask(front, start=n)
    assert len(worker.region_requests) == 1
    assert not any(call.shared for call in worker.calls)
    eventually(lambda: not files(prefix))
    complaints = [line for line in bench.engine.logs if "shared memory" in line]
    assert complaints == [
        "warning: worker w: large tensors go over the socket for the next 60 s: it refused shared memory: This API is "
        "restricted"
    ]


def test_the_refusal_of_one_worker_does_not_affect_others(bench: Bench) -> None:
    refusing, other = bench.worker("a"), bench.worker("b")
    refusing.secret = "another secret"
    bench.route("a", "b", batch=1)
    front = make_front(bench)

    def shared() -> bool:
        # Sequential requests would all go to the worker that was faster at first.
        for request in front.send_many(4, large()):
            assert request.wait().failure is None
        return bool(other.calls and other.calls[-1].shared)

    eventually(shared)
    assert not refusing.regions


@pytest.mark.slow
def test_a_registration_without_an_answer_times_out(bench: Bench, prefix: str) -> None:
    worker = Silent(bench.run_dir, "w", double)
    with worker:
        bench.route("w")
        front = make_front(bench)
        for n in range(3):
            ask(front, start=n)
        eventually(
            lambda: any(
                "it did not answer the registration of shared memory in time" in line for line in bench.engine.logs
            )
        )
        eventually(lambda: not files(prefix))
        ask(front)
        worker.answering.set()


class Silent(Worker):
    """Worker that does not answer requests about shared memory."""

    def _change_region(self, name: str, verb: str, fields: dict[str, str], asked: dict[str, object]) -> bytes:
        self.region_requests.append((verb, name))
        return b""


def test_a_region_that_the_worker_has_lost_fails_no_request(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w")
    front = make_front(bench)
    settle(worker, front)
    worker.regions.clear()
    ask(front)
    worker.calls.clear()
    settle(worker, front)


def test_a_worker_that_leaves_the_route_unmaps_its_regions(bench: Bench, prefix: str) -> None:
    worker, other = bench.worker("a"), bench.worker("b")
    bench.route("a")
    front = make_front(bench)
    settle(worker, front)
    bench.route("b")
    settle(other, front)
    eventually(lambda: not worker.regions)
    eventually(lambda: {file.name for file in files(prefix)} == set(other.regions))


def test_closing_a_front_frees_its_regions(bench: Bench, prefix: str) -> None:
    worker = bench.worker()
    bench.route("w")
    front = make_front(bench)
    settle(worker, front)
    front.close()
    eventually(lambda: not files(prefix) and not worker.regions)


@pytest.mark.parametrize("unusable", ["", "no/such/folder/"])
def test_without_a_usable_prefix_no_shared_memory_is_used(run_dir: Path, unusable: str) -> None:
    with ExitStack() as stack, Engine(run_dir, SECRET, unusable) as engine:
        bench = Bench(engine, stack)
        worker = bench.worker()
        bench.route("w")
        front = make_front(bench)
        for n in range(3):
            ask(front, start=n)
        assert not worker.region_requests
        said = (
            "warning: worker w: large tensors go over the socket for the next 60 s: no shared memory could be created"
        )
        eventually(lambda: said in engine.logs or not unusable)
        front.close()


def test_an_answer_larger_than_its_part_of_the_region_is_rejected(bench: Bench) -> None:
    """A worker may claim more bytes in shared memory than the region has space for."""
    worker = bench.worker()
    bench.route("w")
    # A retry might go over the socket and succeed.
    front = make_front(bench, retry=False)
    settle(worker, front)
    honest = worker.handler

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
    assert "output Y does not fit into its part of shared memory" in outcome.message
    worker.handler = honest
    ask(front)


def test_small_and_large_calls_alternate(bench: Bench) -> None:
    worker = bench.worker()
    bench.route("w", batch=16)
    front = make_front(bench)

    def shared() -> bool:
        for items in (1, 5, 16, 2, 16, 1, 9):
            ask(front, items)
        return any(call.shared for call in worker.calls)

    eventually(shared)
