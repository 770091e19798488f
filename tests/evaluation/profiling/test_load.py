import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count, cycle, pairwise, repeat

import numpy as np
import pytest

from jigsaw_triton.errors import ServerError
from jigsaw_triton.evaluation.profiling.load import Load, Loop, Pace, Target, closed_loop
from jigsaw_triton.evaluation.profiling.protocol import CallError
from jigsaw_triton.evaluation.profiling.tensors import batches
from jigsaw_triton.runtime.dtypes import Array, Arrays

QUICK = Pace(most_s=0.0, warm_up_s=0.0, warm_up_batches=1, least_batches=3)


class FakeWorker:
    """Worker that counts the requests in flight by lane; all requests from the `fail_at`-th on fail."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at = fail_at
        self.number = count(1)
        self.lock = threading.Lock()
        self.in_flight: Counter[int] = Counter()
        self.most_in_flight = 0
        self.opened = 0
        self.closed = 0
        self.items: list[int] = []

    def connect(self, _lane: int) -> "FakeConnection":
        self.opened += 1
        return FakeConnection(self)


class FakeConnection:
    def __init__(self, worker: FakeWorker, delays_s: Iterator[float] | None = None) -> None:
        self.worker = worker
        self.delays_s = delays_s or repeat(0.0)

    def send(self, model: str, inputs: Arrays, outputs: tuple[str, ...]) -> None:
        assert (model, outputs) == ("m", ("Y",))
        with self.worker.lock:
            if self.worker.fail_at is not None and next(self.worker.number) >= self.worker.fail_at:
                raise CallError("connection closed")
            self.worker.items += inputs["X"][:, 0].tolist()
            self.worker.in_flight[threading.get_ident()] += 1
            self.worker.most_in_flight = max(self.worker.most_in_flight, self.worker.in_flight.total())

    def receive(self) -> dict[str, Array]:
        time.sleep(next(self.delays_s))  # Lets other threads run.
        with self.worker.lock:
            self.worker.in_flight[threading.get_ident()] -= 1
        return {"Y": np.zeros(1)}

    def close(self) -> None:
        self.worker.closed += 1


def run(worker: FakeWorker, *, size: int, lanes: int, side_by_side: bool, pace: Pace = QUICK) -> Loop:
    prepared = batches([{"X": np.array([n])} for n in range(6)], size, side_by_side=side_by_side)
    return asyncio.run(closed_loop(Load(Target("m", ("Y",), worker.connect), prepared, lanes), pace))


@pytest.mark.parametrize("side_by_side", [False, True])
def test_each_lane_has_one_batch_in_flight_and_is_measured(side_by_side: bool) -> None:
    worker = FakeWorker()
    lanes = run(worker, size=2, lanes=3, side_by_side=side_by_side).lanes
    assert len(lanes) == 3
    assert all(len(spans) >= 3 for spans in lanes)
    assert all(a[1] <= b[0] for spans in lanes for a, b in pairwise(spans))
    assert worker.most_in_flight <= 3 * (2 if side_by_side else 1)
    assert worker.opened == worker.closed == 3 * (2 if side_by_side else 1)
    assert worker.in_flight.total() == 0
    # Each lane starts with another batch, so all of the input is used.
    assert set(worker.items) == set(range(6))


def test_batches_in_flight_at_the_start_of_the_measurement_do_not_count() -> None:
    worker = FakeWorker()
    (spans,) = run(worker, size=1, lanes=1, side_by_side=False).lanes
    assert len(spans) < len(worker.items)


class SlowWorker(FakeWorker):
    """Worker whose answers take given times."""

    def __init__(self, delays_s: Iterator[float]) -> None:
        super().__init__()
        self.delays_s = delays_s

    def connect(self, _lane: int) -> FakeConnection:
        return FakeConnection(self, self.delays_s)


def test_a_steady_measurement_ends_when_it_is_certain() -> None:
    pace = Pace(most_s=30.0, least_s=0.2, half_width=0.5, warm_up_s=0.0)
    found = run(SlowWorker(repeat(0.001)), size=1, lanes=1, side_by_side=False, pace=pace)
    assert found.confident
    assert found.half_widths is not None
    assert found.half_widths.widest <= 0.5
    assert 0.2 <= found.seconds < 10


@pytest.mark.slow
def test_an_erratic_measurement_ends_at_the_end_of_its_time() -> None:
    # Latencies grow from batch to batch, so that no interval is narrow, however few batches a busy machine does.
    growing = (0.001 * 1.01**number for number in count())
    pace = Pace(most_s=1.0, least_s=0.1, half_width=0.05, warm_up_s=0.0)
    found = run(SlowWorker(growing), size=1, lanes=1, side_by_side=False, pace=pace)
    assert not found.confident
    assert found.half_widths is not None
    assert found.half_widths.widest > 0.05
    assert found.seconds >= 1.0


def test_a_measurement_with_few_batches_states_no_confidence() -> None:
    pace = Pace(most_s=0.1, warm_up_s=0.0, warm_up_batches=1)
    found = run(SlowWorker(cycle([0.02])), size=1, lanes=1, side_by_side=False, pace=pace)
    assert (found.half_widths, found.confident) == (None, False)
    assert len(found.lanes[0]) >= pace.least_batches


@pytest.mark.parametrize("fail_at", [1, 2, 15])
def test_a_failed_batch_ends_the_loop_with_its_reason(fail_at: int) -> None:
    worker = FakeWorker(fail_at)
    with pytest.raises(ServerError, match="not answered: connection closed") as caught:
        run(worker, size=2, lanes=2, side_by_side=True)
    assert caught.value.where == "m"
    assert worker.opened == worker.closed


def test_the_processor_time_of_the_servers_is_that_of_the_measurement() -> None:
    worker, readings = FakeWorker(), iter([10.0, 10.25])
    batch = batches([{"X": np.zeros(1, np.float32)}], 1, side_by_side=False)
    load = Load(Target("m", ("Y",), worker.connect), batch, 1)
    loop = asyncio.run(closed_loop(load, QUICK, lambda: next(readings)))
    assert loop.used_s == 0.25
