"""Time that something may take."""

import time

import pytest

from jigsaw_triton.planner.solver.deadline import LEAST_S, Deadline


def test_what_is_left_of_it_and_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    allowance = Deadline(10.0)
    now_s = 103.0
    assert (allowance.spent_s, allowance.left_s, allowance.over) == (3.0, 7.0, False)
    now_s = 109.5
    assert (allowance.left_s, allowance.over) == (LEAST_S, False)
    now_s = 111.0
    assert (allowance.spent_s, allowance.left_s, allowance.over) == (11.0, LEAST_S, True)
