"""Large tensors through shared memory, between a delivery and a stand-in for a worker."""

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.runtime.batches import Batch, Failure
from jigsaw_triton.runtime.counters import Counters
from jigsaw_triton.runtime.delivery import SOCKETS_S, Delivery
from jigsaw_triton.runtime.dtypes import Array
from jigsaw_triton.runtime.regions import FOLDER, SMALLEST_BYTES, Placement, Region, Regions, Span
from jigsaw_triton.runtime.route import Route
from jigsaw_triton.runtime.spec import DispatcherSpec, TensorSpec
from jigsaw_triton.runtime.wire import Connection
from tests.runtime.fake_worker import SECRET, Call, FakeWorker, Handler, HangUp
from tests.runtime.test_route import write

LARGE = SMALLEST_BYTES // 4
X, K, Y = TensorSpec("X", "FP32", (LARGE,)), TensorSpec("K", "INT64", (1,)), TensorSpec("Y", "FP32", (LARGE,))
SPEC = DispatcherSpec("g", "t", "stack", (X, K), (Y,))


def scaled(call: Call) -> dict[str, Array]:
    return {"Y": call.inputs["X"] * call.inputs["K"].astype(np.float32)}


def request(seed: int, items: int = 1) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {"X": rng.random((items, LARGE), np.float32), "K": np.full((items, 1), seed, np.int64)}


class Bench:
    def __init__(self, run_dir: Path, stack: ExitStack) -> None:
        self.run_dir, self.stack = run_dir, stack
        self.prefix = f"jigsaw-test-{secrets.token_hex(6)}-"
        self.logged: list[str] = []
        self.later_s = 0.0
        (run_dir / "routes").mkdir()

    def worker(self, name: str, handler: Handler = scaled) -> FakeWorker:
        return self.stack.enter_context(FakeWorker(self.run_dir / "workers" / f"{name}.sock", handler))

    def route(self, *workers: str) -> None:
        entries = [{"worker": name, "model": "m", "batch": 4, "slots": 1} for name in workers]
        write(self.run_dir / "routes" / "d.json", *entries)

    def delivery(self, *workers: str, secret: str = SECRET, call_timeout_ms: int = 30_000) -> Delivery:
        self.route(*workers)
        route = Route(self.run_dir / "routes" / "d.json", self.logged.append)
        counters = Counters(self.run_dir / "counters", 0)
        delivery = Delivery(
            replace(SPEC, call_timeout_ms=call_timeout_ms),
            route,
            self.run_dir,
            counters,
            self.logged.append,
            lambda: None,
            lambda: time.monotonic() + self.later_s,
            secret=secret,
            shm_prefix=self.prefix,
        )
        self.stack.callback(delivery.close)
        return delivery

    def names(self) -> list[str]:
        return sorted(path.name for path in FOLDER.glob(f"{self.prefix}*"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("jigsaw_triton.runtime.regions._LEAST_REGION_BYTES", 1)
    with ExitStack() as stack:
        made = Bench(tmp_path, stack)
        yield made
    assert made.names() == []


def check(delivery: Delivery, *requests: dict[str, Array]) -> None:
    batch = Batch(SPEC, requests)
    delivery.run(batch)
    for asked, result in zip(requests, batch.results(), strict=True):
        assert not isinstance(result, Failure), result
        np.testing.assert_array_equal(result["Y"], asked["X"] * asked["K"].astype(np.float32))


def test_large_tensors_go_through_one_region_and_small_ones_beside_it(bench: Bench) -> None:
    worker = bench.worker("a")
    delivery = bench.delivery("a")
    for seed in range(3):
        check(delivery, request(seed), request(seed + 10))
    assert all(set(call.shared) == {"Y"} for call in worker.calls)
    assert len(bench.names()) == len(worker.regions) == 1


def test_a_region_that_is_too_small_makes_way(bench: Bench) -> None:
    worker = bench.worker("a")
    delivery = bench.delivery("a")
    check(delivery, request(1))
    (small,) = bench.names()
    check(delivery, *map(request, range(4)))
    check(delivery, request(1))
    (large,) = bench.names()
    assert large != small
    assert set(worker.regions) == {large}


def test_a_worker_that_starts_again_is_told_again(bench: Bench) -> None:
    first = bench.worker("a")
    delivery = bench.delivery("a")
    check(delivery, request(1))
    first.kill()
    second = bench.worker("a")
    check(delivery, request(2))
    assert second.regions
    second.regions.clear()
    check(delivery, request(3))
    assert "unable to find shared memory region" in bench.logged[-1].lower()


def test_a_region_of_a_call_that_went_wrong_is_not_used_again(bench: Bench) -> None:
    late: list[Array] = []

    def handler(call: Call) -> dict[str, Array]:
        if not late:
            late.append(call.shared["Y"])
            raise HangUp
        late[0][:] = 255  # what the first call writes after it was given up
        return scaled(call)

    bench.worker("a", handler)
    bench.worker("b", handler)
    delivery = bench.delivery("a", "b")
    check(delivery, request(1))
    assert len(bench.names()) == 1


def test_where_a_worker_takes_no_shared_memory_sockets_do(bench: Bench) -> None:
    worker = bench.worker("a")
    delivery = bench.delivery("a", secret="wrong")
    for seed in range(2):
        check(delivery, request(seed))
    (told,) = bench.logged
    assert "takes no shared memory, large tensors go over its socket for 60 s: This API is restricted" in told
    assert bench.names() == []
    assert [call.shared for call in worker.calls] == [{}, {}]


def test_a_worker_that_took_no_shared_memory_is_asked_again_after_a_while(bench: Bench) -> None:
    worker = bench.worker("a")
    worker.secret = "another"
    delivery = bench.delivery("a")
    check(delivery, request(1))
    worker.secret = SECRET
    for bench.later_s, shared in ((SOCKETS_S / 2, set()), (SOCKETS_S, {"Y"})):
        check(delivery, request(2))
        assert set(worker.calls[-1].shared) == shared
    assert len(bench.logged) == 1


def test_what_one_worker_refuses_others_still_get(bench: Bench) -> None:
    refusing, other = bench.worker("a"), bench.worker("b")
    refusing.secret = "another"
    delivery = bench.delivery("a", "b")
    for seed in range(4):
        check(delivery, request(seed))
    assert [set(call.shared) for call in refusing.calls] == [set()] * 2
    assert [set(call.shared) for call in other.calls] == [{"Y"}] * 2


def test_a_worker_that_hangs_keeps_nobody_from_dropping_a_region(bench: Bench) -> None:
    worker = bench.worker("a")
    region = Region(f"{bench.prefix}0", 4096)
    connection = Connection(f"unix:{worker.path}", 3600.0, SECRET)
    inputs: dict[str, Array] = {"X": np.ones((1, 4), np.float32), "K": np.ones((1, 1), np.int64)}
    for usable in (True, False):
        connection.send("m", inputs, ("Y",), Placement(region, {}, {"Y": Span(0, 16)}))
        assert connection.receive()["Y"].tolist() == [[1.0] * 4]
        if not usable:
            worker.going.clear()
        assert connection.forget(region.name) is usable
    connection.close()
    region.unlink()


def test_a_worker_that_hangs_before_it_knows_a_region_is_given_up_soon(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jigsaw_triton.runtime.wire._REGISTER_S", 0.02)
    hanging, other = bench.worker("a"), bench.worker("b")
    hanging.going.clear()
    delivery = bench.delivery("a", "b", call_timeout_ms=3_600_000)
    for seed in range(2):
        check(delivery, request(seed))
    assert bench.logged == ["task t: worker a failed: no answer in time"]
    assert len(other.calls) == 2


def test_a_worker_that_leaves_the_route_forgets_the_regions(bench: Bench) -> None:
    left, other = bench.worker("a"), bench.worker("b")
    delivery = bench.delivery("a")
    check(delivery, request(1))
    assert left.regions
    bench.route("b")
    check(delivery, request(2))
    assert not left.regions
    assert other.regions


@pytest.mark.parametrize("call", ["open", "posix_fallocate"])
def test_without_memory_sockets_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr("jigsaw_triton.runtime.regions.FOLDER", tmp_path)

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, refuse)
    regions = Regions("x", lambda region: None)
    assert regions.place({"X": ("FP32", SMALLEST_BYTES)}, (), 1) is None
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_a_name_never_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even from another process with the same number, as after a container has started again."""
    monkeypatch.setattr("jigsaw_triton.runtime.regions.FOLDER", tmp_path)
    names = set()
    for _ in range(2):
        regions = Regions("x", lambda region: None)
        placement = regions.place({"X": ("FP32", SMALLEST_BYTES)}, (), 1)
        assert placement is not None
        names.add(placement.region.name)
        regions.close()
    assert len(names) == 2


def test_only_what_is_large_and_of_known_size_is_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jigsaw_triton.runtime.regions.FOLDER", tmp_path)
    regions = Regions("x", lambda region: None)
    outputs = (TensorSpec("R", "FP32", (-1, LARGE)), TensorSpec("S", "BYTES", (LARGE,)), Y)
    inputs = {"T": ("BYTES", 10**6), "X": ("FP32", SMALLEST_BYTES + 4), "K": ("FP32", SMALLEST_BYTES - 4)}
    placement = regions.place(inputs, outputs, 2)
    assert placement is not None
    assert placement.inputs == {"X": Span(0, SMALLEST_BYTES + 4)}
    assert placement.outputs == {"Y": Span(SMALLEST_BYTES + 64, 2 * SMALLEST_BYTES)}
    assert regions.place({"K": ("FP32", 8)}, outputs[:2], 9) is None
    regions.close()
    assert list(tmp_path.iterdir()) == []


def test_a_region_is_seen_by_whoever_maps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jigsaw_triton.runtime.regions.FOLDER", tmp_path)
    region = Region("r", 4096)
    region.view(Span(64, 8), "INT32", (2,))[:] = [3, 4]
    assert np.fromfile(tmp_path / "r", np.int32)[16:18].tolist() == [3, 4]
    region.unlink()
    region.unlink()
