import math

import pytest

from jigsaw_triton.runtime.admission import MAX_IN_FLIGHT, RECENT, Admission, Turn


class World:
    """An admission control with an SLO of one second, and a clock that moves only by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.admission: Admission[str] = Admission(1.0, lambda: self.now_s)

    def fill(self) -> None:
        """Starts as many requests as can be in flight."""
        for number in range(MAX_IN_FLIGHT):
            assert self.arrived(f"filler {number}").start

    def arrived(self, request: str, items: int = 1, limit_s: float | None = None) -> Turn[str]:
        return self.admission.arrived(request, items, limit_s)

    def ended(self, items: int = 1, took_s: float | None = 0.2) -> Turn[str]:
        return self.admission.ended(items, took_s)


@pytest.fixture
def world() -> World:
    return World()


def test_requests_beyond_the_limit_wait_for_their_turn(world: World) -> None:
    world.fill()
    assert world.arrived("a") == world.arrived("b") == Turn((), ())
    assert world.ended() == Turn(("a",), ())
    assert world.ended() == Turn(("b",), ())
    assert world.ended() == Turn((), ())
    assert world.arrived("c").start == ("c",)


def test_a_request_that_can_no_longer_meet_the_slo_is_refused(world: World) -> None:
    world.fill()
    world.ended(took_s=0.2)
    assert world.arrived("next").start == ("next",)
    world.arrived("late")
    world.now_s += 0.3
    world.arrived("in time")
    world.now_s += 0.31
    # A request may wait for 0.75 of the 0.8 s that its duration of 0.2 s leaves of the SLO.
    turn = world.ended()
    assert turn.start == ("in time",)
    ((refused, waited_s),) = turn.refuse
    assert refused == "late"
    assert waited_s == pytest.approx(0.61)


def test_late_requests_are_refused_when_others_arrive(world: World) -> None:
    world.fill()
    world.arrived("a")
    world.now_s += 2.0
    assert [request for request, _ in world.arrived("b").refuse] == ["a"]


def test_the_timeout_of_a_request_replaces_the_slo(world: World) -> None:
    world.fill()
    world.ended(took_s=0.2)
    world.arrived("filler")
    world.arrived("later", limit_s=60.0)
    world.arrived("sooner", limit_s=0.3)
    world.now_s += 50.0
    turn = world.ended()
    assert turn.start == ("later",)
    assert [request for request, _ in turn.refuse] == ["sooner"]


def test_slow_answers_leave_a_minimum_wait_and_are_forgotten(world: World) -> None:
    world.fill()
    for _ in range(MAX_IN_FLIGHT):
        world.ended(took_s=5.0)
    world.fill()
    world.arrived("a")
    world.now_s += 0.09
    assert world.ended(took_s=5.0).start == ("a",)
    for _ in range(RECENT):
        world.ended(took_s=0.1)
        world.arrived("quick")
    world.arrived("b")
    world.now_s += 0.6
    assert world.ended(took_s=0.1).start == ("b",)


def test_a_failure_does_not_count_as_a_duration(world: World) -> None:
    world.fill()
    world.ended(took_s=None)
    world.arrived("filler")
    world.arrived("a")
    world.now_s += 0.7
    assert world.ended(took_s=None).start == ("a",)


def test_a_batch_beyond_the_limit_runs_alone(world: World) -> None:
    world.arrived("a")
    assert world.arrived("large", items=2 * MAX_IN_FLIGHT).start == ()
    assert world.arrived("b").start == ()
    assert world.ended().start == ("large",)
    assert world.ended(items=2 * MAX_IN_FLIGHT).start == ("b",)


def test_polling_refuses_late_requests(world: World) -> None:
    world.fill()
    assert world.arrived("waiting") == Turn((), ())
    world.now_s += 0.7
    assert world.admission.poll() == Turn((), ())
    world.now_s += 0.1
    ((refused, waited_s),) = world.admission.poll().refuse
    assert (refused, round(waited_s, 3)) == ("waiting", 0.8)


def test_without_an_slo_requests_wait_indefinitely(world: World) -> None:
    world.admission = Admission(math.inf, lambda: world.now_s)
    world.fill()
    world.ended(took_s=5.0)
    world.arrived("filler")
    assert world.arrived("later") == world.arrived("sooner", limit_s=1.0) == Turn((), ())
    world.now_s += 1e6
    assert world.ended() == Turn(("later",), (("sooner", 1e6),))
