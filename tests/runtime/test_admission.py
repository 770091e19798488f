import math

import pytest

from jigsaw_triton.runtime.admission import MOST_UNDER_WAY, RECENT, Admission, Turn


class World:
    """An admission with an SLO of one second, and a clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.admission: Admission[str] = Admission(1.0, lambda: self.now_s)

    def fill(self) -> None:
        """Lets in as many as can be under way."""
        for number in range(MOST_UNDER_WAY):
            assert self.came(f"filler {number}").start

    def came(self, what: str, items: int = 1, limit_s: float | None = None) -> Turn[str]:
        return self.admission.came(what, items, limit_s)

    def ended(self, items: int = 1, took_s: float | None = 0.2) -> Turn[str]:
        return self.admission.ended(items, took_s)


@pytest.fixture
def world() -> World:
    return World()


def test_requests_beyond_those_under_way_wait_for_their_turn(world: World) -> None:
    world.fill()
    assert world.came("a") == world.came("b") == Turn((), ())
    assert world.ended() == Turn(("a",), ())
    assert world.ended() == Turn(("b",), ())
    assert world.ended() == Turn((), ())
    assert world.came("c").start == ("c",)


def test_a_request_that_has_waited_for_longer_than_is_left_of_the_slo_is_refused(world: World) -> None:
    world.fill()
    world.ended(took_s=0.2)
    assert world.came("next").start == ("next",)
    world.came("late")
    world.now_s += 0.3
    world.came("in time")
    world.now_s += 0.31
    # 0.75 of the 0.8 s that are left beside the 0.2 s that one takes.
    turn = world.ended()
    assert turn.start == ("in time",)
    ((what, waited_s),) = turn.refuse
    assert what == "late"
    assert waited_s == pytest.approx(0.61)


def test_the_late_are_refused_as_others_come_though_none_ends(world: World) -> None:
    world.fill()
    world.came("a")
    world.now_s += 2.0
    assert [what for what, _ in world.came("b").refuse] == ["a"]


def test_a_timeout_of_its_own_takes_the_place_of_the_slo(world: World) -> None:
    world.fill()
    world.ended(took_s=0.2)
    world.came("filler")
    world.came("patient", limit_s=60.0)
    world.came("hasty", limit_s=0.3)
    world.now_s += 50.0
    turn = world.ended()
    assert turn.start == ("patient",)
    assert [what for what, _ in turn.refuse] == ["hasty"]


def test_answers_that_take_as_long_as_the_slo_leave_a_little_patience_and_are_forgotten(world: World) -> None:
    world.fill()
    for _ in range(MOST_UNDER_WAY):
        world.ended(took_s=5.0)
    world.fill()
    world.came("a")
    world.now_s += 0.09
    assert world.ended(took_s=5.0).start == ("a",)
    for _ in range(RECENT):
        world.ended(took_s=0.1)
        world.came("quick")
    world.came("b")
    world.now_s += 0.6
    assert world.ended(took_s=0.1).start == ("b",)


def test_a_failure_tells_nothing_of_how_long_answers_take(world: World) -> None:
    world.fill()
    world.ended(took_s=None)
    world.came("filler")
    world.came("a")
    world.now_s += 0.7
    assert world.ended(took_s=None).start == ("a",)


def test_a_batch_of_more_items_than_can_be_under_way_goes_alone(world: World) -> None:
    world.came("a")
    assert world.came("large", items=2 * MOST_UNDER_WAY).start == ()
    assert world.came("b").start == ()
    assert world.ended().start == ("large",)
    assert world.ended(items=2 * MOST_UNDER_WAY).start == ("b",)


def test_requests_come_too_late_while_nothing_else_happens(world: World) -> None:
    world.fill()
    assert world.came("waiting") == Turn((), ())
    world.now_s += 0.7
    assert world.admission.look() == Turn((), ())
    world.now_s += 0.1
    ((refused, waited_s),) = world.admission.look().refuse
    assert (refused, round(waited_s, 3)) == ("waiting", 0.8)


def test_without_a_limit_requests_wait_for_as_long_as_it_takes(world: World) -> None:
    world.admission = Admission(math.inf, lambda: world.now_s)
    world.fill()
    world.ended(took_s=5.0)
    world.came("filler")
    assert world.came("patient") == world.came("hasty", limit_s=1.0) == Turn((), ())
    world.now_s += 1e6
    assert world.ended() == Turn(("patient",), (("hasty", 1e6),))
