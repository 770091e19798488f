"""How long a batch may wait, told by a clock that a test sets and by how many requests wait behind it."""

import numpy as np

from jigsaw_triton.runtime.batches import Batch
from jigsaw_triton.runtime.patience import ASK_EVERY_S, MOST_BYTES, Patience
from jigsaw_triton.runtime.spec import DispatcherSpec, TensorSpec

MIB = 2**20
SLACK_S, SLO_S = 0.25, 0.5
SPEC = DispatcherSpec("g", "t", "stack", (TensorSpec("X", "UINT8", (MIB,)),), (TensorSpec("Y", "INT64", (1,)),))
BATCH = Batch(SPEC, [{"X": np.zeros((1, MIB), np.uint8)}] * 2)
"""Its requests are of a MiB each."""

MOST = MOST_BYTES // MIB


class Bench:
    def __init__(self, waiting: int | None) -> None:
        self.now = 7.0
        self.waiting = waiting
        self.asked: list[float] = []
        self.patience = Patience(SLACK_S, SLO_S, self.ask, lambda: self.now)
        self.now = 8.0
        self.patience.begin()

    def ask(self) -> int | None:
        self.asked.append(self.now - 8.0)
        return self.waiting

    def spent(self, after_s: float, *, under_way: bool = False) -> str | None:
        self.now = 8.0 + after_s
        return self.patience.spent(BATCH, under_way=under_way)


def test_too_much_behind_a_batch_that_is_late_ends_it() -> None:
    bench = Bench(waiting=MOST + 1)
    assert bench.spent(0.0) is None
    assert bench.spent(SLACK_S / 2) is None
    assert bench.spent(SLACK_S) == "no worker did it within 0.2 s, and requests of about 257 MiB wait behind it"
    assert bench.asked == [SLACK_S]


def test_what_is_at_a_worker_has_all_of_the_slo() -> None:
    bench = Bench(waiting=MOST + 1)
    assert bench.spent(SLACK_S, under_way=True) is None
    assert bench.spent(SLO_S, under_way=True) is not None


def test_while_little_or_nobody_knows_what_waits_it_is_asked_once_a_second() -> None:
    for waiting in (MOST, None):
        bench = Bench(waiting)
        assert [bench.spent(tick / 8) for tick in range(25)] == [None] * 25
        assert bench.asked == [SLACK_S, SLACK_S + ASK_EVERY_S, SLACK_S + 2 * ASK_EVERY_S]


def test_what_is_left_ends_with_the_next_question() -> None:
    bench = Bench(waiting=0)
    assert (bench.patience.left_s(under_way=False), bench.patience.left_s(under_way=True)) == (SLACK_S, SLO_S)
    bench.spent(SLO_S)
    assert bench.patience.left_s(under_way=True) == ASK_EVERY_S


def test_each_batch_has_its_own_time() -> None:
    bench = Bench(waiting=MOST + 1)
    bench.now = 20.0
    bench.patience.begin()
    assert bench.spent(12.0 + SLACK_S / 2) is None
    assert bench.spent(12.0 + SLACK_S) is not None
