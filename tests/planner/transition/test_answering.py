import math
from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.graph.model import TaskGraph, Variant
from jigsaw_triton.planner.domain.throughput import ByVariant
from jigsaw_triton.planner.transition.answering import (
    RUNNING,
    TARGET,
    Answering,
    Replicas,
    answering,
    apart,
    lacking,
)
from tests.fakes.graphs import VECTOR, chain, graph, task

GRAPH = chain(3)
TASKS = tuple(GRAPH.tasks)

Rates = tuple[int, int, int]
"""Calls a second of a task's replicas of the running generation, of the target, and of both."""


def replicas(*rates: Rates) -> Replicas:
    sides = [{task: {"v0": float(n)} for task, n in zip(TASKS, side, strict=True)} for side in zip(*rates, strict=True)]
    return Replicas(*sides)


def found(*rates: Rates) -> Answering:
    return answering(GRAPH, replicas(*rates), (), ())


def best(rates: Sequence[Rates]) -> int:
    """Returns the largest capacity of all pairs of whole numbers that each task can serve; -1 if there is none."""
    best_rps = -1
    for of_running in range(21):
        for of_target in range(21):
            extra = [(max(0, of_running - o), max(0, of_target - n), s) for o, n, s in rates]
            if all(more + other <= s for more, other, s in extra):
                best_rps = max(best_rps, of_running + of_target)
    return best_rps


def always_fits(rates: Sequence[Rates], free: int, of_running: int = 0, of_target: int = 0) -> bool:
    """Returns True if all requests are answered, whichever replicas take those that have not chosen a generation.

    Args:
        rates: Rates of the tasks that are left.
        free: Requests that have not chosen.
        of_running: Requests that have chosen the running generation.
        of_target: Requests that have chosen the target.
    """
    if not rates:
        return True
    o, n, s = rates[0]
    if of_running > o + s or of_target > n + s or free + of_running + of_target > o + n + s:
        return False
    for x, y in product(range(min(o, free) + 1), range(min(n, free) + 1)):
        open_ = free - x - y
        fits = open_ >= 0 and max(0, of_running - (o - x)) + max(0, of_target - (n - y)) <= s - open_
        if fits and not always_fits(rates[1:], open_, of_running + x, of_target + y):
            return False
    return True


RATES = st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=3, max_size=3)


@given(RATES)
def test_the_capacity_is_the_best_division_of_the_requests(rates: list[Rates]) -> None:
    answered = found(*rates)
    if not answered.mixed:
        assert answered.capacity_rps == pytest.approx(best(rates))


@given(RATES)
def test_the_shares_of_the_generations_fit_every_task(rates: list[Rates]) -> None:
    answered = found(*rates)
    if answered.share is not None and not answered.mixed:
        of_target = answered.share * answered.capacity_rps
        of_running = answered.capacity_rps - of_target
        for o, n, s in rates:
            assert max(0.0, of_running - o) + max(0.0, of_target - n) <= s + 1e-6


@given(RATES)
def test_requests_choose_freely_only_where_every_choice_fits(rates: list[Rates]) -> None:
    answered = found(*rates)
    if answered.share is None and not answered.mixed:
        assert always_fits(rates, math.floor(answered.capacity_rps + 1e-6))


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        # One task differs: whichever replica is free takes the request.
        ([(2, 3, 0), (0, 0, 9), (0, 0, 9)], Answering(5.0, None)),
        # Two tasks differ: the target gets as much as its second task carries.
        ([(6, 6, 0), (9, 3, 0), (0, 0, 20)], Answering(9.0, 1 / 3)),
        # The target lacks a task, or the running generation does.
        ([(4, 4, 0), (4, 0, 0), (0, 0, 9)], Answering(4.0, RUNNING)),
        ([(4, 4, 0), (0, 4, 0), (0, 0, 9)], Answering(4.0, TARGET)),
        # Neither has all tasks.
        ([(4, 0, 0), (0, 3, 0), (0, 0, 9)], Answering(3.0, None, mixed=True)),
        ([(0, 0, 0), (4, 4, 0), (0, 0, 9)], Answering(0.0, None)),
    ],
)
def test_examples_have_the_expected_capacity_and_share(rates: list[Rates], expected: Answering) -> None:
    answered = found(*rates)
    assert answered.capacity_rps == pytest.approx(expected.capacity_rps)
    assert (answered.share, answered.mixed) == (expected.share, expected.mixed)


def test_requests_are_not_bound_on_arrival_if_one_generation_carries_as_much() -> None:
    assert found((100, 1, 0), (100, 1, 0), (0, 0, 100)) == Answering(100.0, RUNNING)
    assert found((1, 100, 0), (1, 100, 0), (0, 0, 100)) == Answering(100.0, TARGET)


def yielding() -> TaskGraph:
    """A graph of task a, whose variant v1 yields ten rows and v0 one, task b for each row, and task c."""
    variants = (
        Variant("v0", 1.0, "emulated", yields={"R": 1.0}),
        Variant("v1", 0.9, "emulated", yields={"R": 10.0}),
    )
    a = task("a", {"X": "inputs.X"}, outputs={"R": VECTOR.rows()}, of=variants)
    b, c = task("b", {"X": "a.R"}, for_each="a.R"), task("c", {"X": "inputs.X"})
    return graph([a, b, c], {"Y": "b.Y", "Z": "c.Y"})


def of_variants(v0: float, v1: float, b: float, c: float) -> ByVariant:
    return {"a": {"v0": v0, "v1": v1}, "b": {"v0": b}, "c": {"v0": c}}


NONE = of_variants(0.0, 0.0, 0.0, 0.0)


def test_together_generations_carry_the_rows_of_the_variant_that_yields_most() -> None:
    def together(v1: float) -> Answering:
        own, target = of_variants(0.0, 0.0, 0.0, 5.0), of_variants(0.0, v1, 0.0, 5.0)
        return answering(yielding(), Replicas(own, target, of_variants(10.0, 0.0, 25.0, 0.0)), (), ())

    # With v1, the target's requests could all use it: 2.5 requests a second have 25 rows.
    assert together(0.0) == Answering(10.0, None)
    assert together(2.0) == Answering(5.0, RUNNING)


def test_a_generation_that_could_use_its_own_variant_alone_carries_the_rows_of_that() -> None:
    own, target = of_variants(10.0, 0.0, 30.0, 0.0), of_variants(0.0, 10.0, 30.0, 0.0)
    answered = answering(yielding(), Replicas(own, target, of_variants(0.0, 0.0, 60.0, 20.0)), (), ())
    assert answered == Answering(12.0, 9.0 / 19.0)


def test_requests_follow_the_plan_whose_mix_carries_most() -> None:
    def shared(running: Sequence[ByVariant], target: Sequence[ByVariant]) -> Answering:
        return answering(yielding(), Replicas(NONE, NONE, of_variants(10.0, 10.0, 22.0, 50.0)), running, target)

    light, heavy = of_variants(1.0, 0.0, 1.0, 1.0), of_variants(0.0, 1.0, 1.0, 1.0)
    assert shared((), ()) == shared((heavy,), (heavy,)) == Answering(4.0, None)
    assert shared((light,), (heavy,)) == Answering(10.0, RUNNING)
    assert shared((heavy,), (light,)) == Answering(10.0, TARGET)


def test_a_separate_graph_uses_the_target_only_for_tasks_that_it_lacks() -> None:
    assert apart(GRAPH, replicas((4, 4, 1), (0, 3, 0), (0, 0, 9))).capacity_rps == 3.0


def test_more_replicas_where_some_are_missing_bring_a_rate_closer() -> None:
    now = replicas((4, 4, 0), (4, 2, 0), (0, 0, 7))
    more = replicas((4, 4, 0), (4, 2, 2), (0, 0, 7))
    assert lacking(GRAPH, more, 8.0) < lacking(GRAPH, now, 8.0)
    assert lacking(GRAPH, more, 6.0) == 0.0
