"""How fast refusals go out."""

from dataclasses import dataclass

import pytest

from jigsaw_triton.runtime.pace import AT_ONCE, MOST_PER_S, Pace


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_few_refusals_do_not_wait() -> None:
    pace = Pace(0, Clock())
    assert pace.pause_s(AT_ONCE, AT_ONCE) == 0


def test_more_at_once_wait_as_long_as_they_are_more() -> None:
    pace = Pace(0, Clock())
    assert pace.pause_s(40, AT_ONCE + 40) == pytest.approx(40 / MOST_PER_S)


def test_refusals_of_before_do_not_count() -> None:
    assert Pace(1_000_000, Clock()).pause_s(8, 1_000_008) == 0


def test_refusals_that_come_no_faster_than_they_may_never_wait() -> None:
    clock = Clock()
    pace = Pace(0, clock)
    pauses = []
    for refused in range(8, 8000, 8):
        clock.now += 8 / MOST_PER_S
        pauses.append(pace.pause_s(8, refused))
    assert not any(pauses)


def test_time_without_refusals_is_not_saved_up() -> None:
    clock = Clock()
    pace = Pace(0, clock)
    pace.pause_s(8, 8)
    clock.now += 3600
    assert pace.pause_s(AT_ONCE + 40, 8 + AT_ONCE + 40) == pytest.approx(40 / MOST_PER_S)


@pytest.mark.parametrize("instances", [1, 2, 16])
def test_instances_empty_a_long_queue_together_at_the_pace(instances: int) -> None:
    """Each takes the next eight as soon as its pause is over."""
    clock = Clock()
    began = clock.now
    paces = [Pace(0, clock) for _ in range(instances)]
    free_at = [began] * instances
    refused = 0
    while refused < 4000:
        instance = free_at.index(min(free_at))
        clock.now = free_at[instance]
        refused += 8
        free_at[instance] += paces[instance].pause_s(8, refused)
        given_back_in_time = AT_ONCE + MOST_PER_S * (free_at[instance] - began)
        assert refused == pytest.approx(given_back_in_time) or refused < given_back_in_time
    assert max(free_at) - began == pytest.approx(4000 / MOST_PER_S, rel=0.1)
