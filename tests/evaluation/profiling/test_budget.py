import pytest

from jigsaw_triton.evaluation.profiling.budget import Budget
from jigsaw_triton.evaluation.profiling.load import Pace

PACE = Pace(most_s=10.0, least_s=1.0)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_without_a_limit_every_measurement_has_all_its_time() -> None:
    clock = Clock()
    budget = Budget(None, PACE, clock)
    assert budget.left_s(3) is None
    clock.now_s += 1e6
    budget.spent(8.0, 5.0)
    assert budget.pace(3) == PACE
    assert budget.left_s(3) == pytest.approx(24)


def test_remaining_points_share_what_is_left_evenly() -> None:
    clock = Clock()
    budget = Budget(60.0, PACE, clock)
    budget.spent(4.0, 2.0)
    clock.now_s += 10
    # Each of ten points has 5 s, of which 2 s are needed to load the model.
    pace = budget.pace(10)
    assert pace is not None
    assert pace.most_s == pytest.approx(3)
    assert pace.least_s == PACE.least_s
    # Few points have all the time that they need, and many at least a second.
    assert budget.pace(2) == PACE
    hurried = budget.pace(1000)
    assert hurried is not None
    assert hurried.most_s == PACE.least_s


def test_nothing_begins_that_would_exceed_the_budget() -> None:
    clock = Clock()
    budget = Budget(60.0, PACE, clock)
    budget.spent(4.0, 2.0)
    clock.now_s += 57.1
    assert budget.pace(1) is None
    assert budget.left_s(1) == pytest.approx(2.9)


def test_a_pace_of_less_than_a_second_stays_as_short() -> None:
    pace = Budget(60.0, Pace(most_s=0.2, least_s=1.0), Clock()).pace(4)
    assert pace is not None
    assert pace.most_s == pytest.approx(0.2)
