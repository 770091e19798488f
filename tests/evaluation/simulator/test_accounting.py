from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from jigsaw_triton.evaluation.simulator.accounting import NEVER_S, Change, Curve, Queue, Replica, all_on_time, operate


class Halving:
    """A system that answers 10 requests a second on time, and half as many from a moment on."""

    def __init__(self, at_s: float, now_s: float = 0.0) -> None:
        self.now_s, self._at_s = now_s, at_s
        self.ticks: list[tuple[float, float]] = []

    @property
    def next_s(self) -> float:
        return self._at_s if self.now_s < self._at_s else NEVER_S

    def advance(self, to_s: float) -> None:
        self.now_s = to_s

    def begin_second(self, rates_rps: Mapping[str, float]) -> None: ...

    def tick(self, rates_rps: Mapping[str, float]) -> None:
        self.ticks.append((self.now_s, rates_rps["app"]))

    def curves(self) -> Mapping[str, Curve]:
        return {"app": all_on_time(10.0 if self.now_s < self._at_s else 5.0)}

    def replicas(self) -> frozenset[Replica]:
        return frozenset()

    def slices(self) -> int:
        return 4 if self.now_s < self._at_s else 2

    def accuracy(self, graph: str) -> float:
        return 0.9

    def changes(self) -> Sequence[Change]:
        return [Change(at_s, 1.0, 2, "", 2) for at_s in (90.0, 102.0)]


def test_a_curve_is_linear_between_its_loads_and_refuses_the_rest() -> None:
    curve = Curve((0.0, 10.0, 20.0), (0.0, 10.0, 16.0).__getitem__)
    assert [curve.violations_rps(load) for load in (5, 10, 15, 20, 30)] == pytest.approx([0, 0, 2, 4, 14])
    assert curve.capacity_rps == 16
    assert [curve.scaled(0.5).violations_rps(load) for load in (5, 10)] == pytest.approx([0, 2])
    assert [curve.scaled(0.0).violations_rps(3.0), all_on_time(0.0).violations_rps(3.0)] == [3.0, 3.0]


def test_an_event_within_a_second_splits_it() -> None:
    system = Halving(at_s=101.25, now_s=100.0)
    found = operate(system, {"app": np.array([8.0, 8.0, 4.0])})
    assert found.violations["app"].tolist() == pytest.approx([0, 0.75 * 3, 0])
    assert found.capacity_rps["app"].tolist() == pytest.approx([10, 0.25 * 10 + 0.75 * 5, 5])
    assert found.slices.tolist() == pytest.approx([4, 2.5, 2])
    assert found.violation_share == pytest.approx(2.25 / 20)
    assert system.ticks == [(101.0, 8.0), (102.0, 8.0), (103.0, 4.0)]


def test_violations_follow_the_mean_rate_and_the_system_sees_the_arrivals() -> None:
    system = Halving(at_s=NEVER_S)
    found = operate(system, {"app": np.array([14.0, 8.0])}, {"app": np.array([11.0, 11.0])})
    assert found.violations["app"].tolist() == pytest.approx([1, 1])
    assert found.sent == 22
    assert system.ticks == [(1.0, 14.0), (2.0, 8.0)]


def test_requests_beyond_the_capacity_wait_as_long_as_they_are_on_time() -> None:
    arrivals = {"app": np.array([14.0, 12.0, 8.0, 10.0, 4.0])}
    found = operate(Halving(at_s=4.0), arrivals, waits_s={"app": 0.5})
    # 4, 5 of 6, 3, and 3 requests wait; the servers that are left can answer 2.5 of the last ones in time.
    assert found.violations["app"].tolist() == pytest.approx([0, 1, 0, 0, 0])
    found = operate(Halving(at_s=4.0), {"app": np.array([14.0, 12.0, 8.0, 10.0, 5.0])}, waits_s={"app": 0.5})
    assert found.violations["app"].tolist() == pytest.approx([0, 1, 0, 0, 0.5])


def test_requests_that_are_late_by_chance_do_not_wait_for_servers() -> None:
    curve = Curve((0.0, 10.0, 20.0), (0.0, 10.0, 16.0).__getitem__)
    queue = Queue(wait_s=0.5)
    assert [queue.violations(curve, load, 1.0) for load in (15, 20, 24)] == pytest.approx([2, 0, 4])
    assert queue.waiting == 8


def test_times_of_changes_count_from_the_start_of_the_trace() -> None:
    found = operate(Halving(at_s=101.25, now_s=100.0), {"app": np.ones(3)})
    assert [change.at_s for change in found.changes] == [2.0]


def test_the_first_part_of_a_simulation_has_its_requests_and_changes_alone() -> None:
    found = operate(Halving(at_s=101.25, now_s=100.0), {"app": np.array([8.0, 8.0, 4.0])})
    assert (found.first(1).violation_share, found.first(2).sent) == (0.0, 16.0)
    assert found.first(2).changes == ()


def test_a_limited_curve_refuses_what_is_above_the_limit() -> None:
    curve = all_on_time(100.0).limited(60.0)
    assert (curve.capacity_rps, curve.violations_rps(50.0), curve.violations_rps(80.0)) == (60.0, 0.0, 20.0)
    half = curve.scaled(0.5)
    assert (half.capacity_rps, half.violations_rps(80.0)) == (50.0, 30.0)
