import asyncio
import threading
import time
from collections import Counter
from itertools import count, pairwise

import numpy as np
import pytest

from jigsaw_triton.errors import ServerError
from jigsaw_triton.evaluation.profiling.load import Pace, Target, closed_loop
from jigsaw_triton.evaluation.profiling.protocol import CallError
from jigsaw_triton.evaluation.profiling.tensors import batches
from jigsaw_triton.runtime.dtypes import Array, Arrays

QUICK = Pace(seconds=0.0, warm_up_s=0.0, warm_up_batches=1, least_batches=3)


class FakeWorker:
    """Notes what is under way on each connection; connections fail from the `fail_at`-th request of all on."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at = fail_at
        self.number = count(1)
        self.lock = threading.Lock()
        self.under_way: Counter[int] = Counter()
        self.most = 0
        self.opened = 0
        self.closed = 0
        self.items: list[int] = []

    def connect(self, _lane: int) -> "FakeWire":
        self.opened += 1
        return FakeWire(self)


class FakeWire:
    def __init__(self, worker: FakeWorker) -> None:
        self.worker = worker

    def send(self, model: str, inputs: Arrays, outputs: tuple[str, ...]) -> None:
        assert (model, outputs) == ("m", ("Y",))
        with self.worker.lock:
            if self.worker.fail_at is not None and next(self.worker.number) >= self.worker.fail_at:
                raise CallError("connection closed")
            self.worker.items += inputs["X"][:, 0].tolist()
            self.worker.under_way[threading.get_ident()] += 1
            self.worker.most = max(self.worker.most, self.worker.under_way.total())

    def receive(self) -> dict[str, Array]:
        time.sleep(0)  # Others may run.
        with self.worker.lock:
            self.worker.under_way[threading.get_ident()] -= 1
        return {"Y": np.zeros(1)}

    def close(self) -> None:
        self.worker.closed += 1


def run(worker: FakeWorker, *, size: int, lanes: int, side_by_side: bool) -> list[list[tuple[float, float]]]:
    made = batches([{"X": np.array([n])} for n in range(6)], size, side_by_side=side_by_side)
    return asyncio.run(closed_loop(Target("m", ("Y",), worker.connect), made, lanes, QUICK))


@pytest.mark.parametrize("side_by_side", [False, True])
def test_each_lane_has_one_batch_under_way_and_is_measured(side_by_side: bool) -> None:
    worker = FakeWorker()
    lanes = run(worker, size=2, lanes=3, side_by_side=side_by_side)
    assert len(lanes) == 3
    assert all(len(spans) >= 3 for spans in lanes)
    assert all(a[1] <= b[0] for spans in lanes for a, b in pairwise(spans))
    assert worker.most <= 3 * (2 if side_by_side else 1)
    assert worker.opened == worker.closed == 3 * (2 if side_by_side else 1)
    assert worker.under_way.total() == 0
    # Each lane begins elsewhere, so that all of the input is used.
    assert set(worker.items) == set(range(6))


def test_batches_that_were_under_way_when_measuring_began_do_not_count() -> None:
    worker = FakeWorker()
    (spans,) = run(worker, size=1, lanes=1, side_by_side=False)
    assert len(spans) < len(worker.items)


@pytest.mark.parametrize("fail_at", [1, 2, 30])
def test_a_batch_that_fails_ends_the_loop_and_says_why(fail_at: int) -> None:
    worker = FakeWorker(fail_at)
    with pytest.raises(ServerError, match="not answered: connection closed") as caught:
        run(worker, size=2, lanes=2, side_by_side=True)
    assert caught.value.where == "m"
    assert worker.opened == worker.closed
