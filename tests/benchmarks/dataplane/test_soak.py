import numpy as np
import pytest

from benchmarks.dataplane import soak
from benchmarks.dataplane.soak import Outcomes


def test_answers_differ_from_request_to_request() -> None:
    x = np.arange(16, dtype=np.float32) + 3
    assert soak.chain_answer(x).tolist() == (4 * x).tolist()
    rows = soak.multiples_answer(x)
    assert rows.dtype == np.float32
    assert rows.tolist() == [(2 * n * x).tolist() for n in (1, 2, 3, 4)]


@pytest.mark.parametrize(("end_mib", "growth", "met"), [(102.0, 0.02, True), (103.0, 0.03, False), (90.0, -0.1, True)])
def test_growth_is_measured_from_the_end_of_the_warm_up(end_mib: float, growth: float, met: bool) -> None:
    memory = [(0, 50.0), (100, 100.0), (150, 100.0), (200, 101.0), (500, 300.0), (900, end_mib), (1000, end_mib)]
    _, found = soak.figures(Outcomes(1000, 1000, kills=2, memory=memory))
    assert (found.value, found.met, found.baseline) == (growth, met, 100)


def test_wrong_answers_and_failures_are_counted_separately() -> None:
    outcomes = Outcomes(1000, 1000, wrong=1, failures=3, reasons={"no worker", "connection broken"}, kills=2)
    (found,) = soak.figures(outcomes)
    assert (found.value, found.met) == (1, False)
    assert "of 1000 requests" in found.note
    assert "2 workers killed" in found.note
    assert found.note.endswith("3 failed: connection broken; no worker")
