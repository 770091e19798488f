import time

import pytest

from jigsaw_triton.planner.solver.deadline import LEAST_S, Deadline


def test_time_spent_and_left_follow_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    deadline = Deadline(10.0)
    now_s = 103.0
    assert (deadline.spent_s, deadline.left_s, deadline.over) == (3.0, 7.0, False)
    now_s = 109.5
    assert (deadline.left_s, deadline.over) == (LEAST_S, False)
    now_s = 111.0
    assert (deadline.spent_s, deadline.left_s, deadline.over) == (11.0, LEAST_S, True)
