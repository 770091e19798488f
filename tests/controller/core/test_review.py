from dataclasses import replace

import pytest

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.recovery import recovered
from jigsaw_triton.controller.core.request_checks import refusal
from jigsaw_triton.controller.core.review import worth
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.state import Phase
from jigsaw_triton.controller.core.transition import stages_to
from jigsaw_triton.controller.persistence.history import outcomes
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.planner.domain.costs import board_costs
from jigsaw_triton.planner.domain.plan import CONSTRUCTED, Plan, PlanSurvival, SolverReport
from tests.controller.worlds import LEARNED, World, bundle, checkpointed, generation, plan, wanted, worker
from tests.fakes.layouts import placed

ALIKE = board_costs(Cluster(()), {})
"""Costs of boards of one kind: each slice counts alike."""

ONE = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))])
TWO = bundle(2, [*ONE.workers.values(), worker("0/1g@2", ("t1", "a"), generation=2)])
THREE = bundle(3, [*ONE.workers.values(), worker("0/1g@3", ("t1", "a"), generation=3)])


def first(demand_rps: float) -> Plan:
    return replace(plan(demand_rps), solver=SolverReport(CONSTRUCTED, "feasible", 0.1, 0.2))


def answer(world: World, solved: Plan, made: Bundle) -> None:
    """Ends the solve that the world holds."""
    (issued,) = world.held
    world.held = []
    world.send(e.Solved(issued.id, solved, made))


def held(world: World) -> a.Solve:
    (issued,) = world.held
    assert isinstance(issued.action, a.Solve)
    return issued.action


def reviewed() -> World:
    """A world in which a burst has led to a first plan, and a review of it has begun."""
    world = World({1: ONE})
    world.send(e.Tick(100.0, {}))
    world.send(e.DeployRequested(wanted()))
    world.hold = lambda action: isinstance(action, a.Solve)
    world.ticks([9.0] * 15)
    assert world.held == []
    world.ticks([20.0] * 4)
    assert held(world).first and not held(world).review
    answer(world, first(25.0), TWO)
    assert world.state.running is not None and world.state.running.bundle == TWO
    assert held(world).review
    return world


def test_a_first_plan_serves_while_its_review_looks_for_a_better_one() -> None:
    world = reviewed()
    assert world.state.phase is Phase.READY
    assert refusal(world.state) is None
    assert (held(world).demand_rps, held(world).may_fall_short) == ({"app": 25.0}, True)
    answer(world, plan(25.0), THREE)
    assert world.state.running is not None and world.state.running.bundle == THREE
    world.ticks([20.0] * 200)
    assert world.held == []


def test_a_review_that_saves_too_little_changes_nothing_and_is_repeated_after_the_period() -> None:
    world = reviewed()
    running = world.state.running
    assert running is not None
    answer(world, running.plan, running.bundle)
    assert world.state.running is running
    world.ticks([20.0] * 59)
    assert world.held == []
    world.ticks([20.0] * 2)
    assert held(world).review


def test_a_burst_during_a_review_is_planned_for_at_once() -> None:
    world = reviewed()
    review = world.held.pop()
    world.ticks([60.0] * 15)
    assert held(world).first
    world.send(e.Solved(review.id, plan(25.0), THREE))
    assert any(isinstance(action, a.Solve) for action in world.state.inflight.values())
    answer(world, plan(75.0), bundle(4, TWO.workers.values()))
    assert world.state.phase is Phase.READY
    assert world.state.running is not None and world.state.running.plan.graphs["app"].demand_rps == 75.0


def test_a_failed_review_changes_nothing() -> None:
    world = reviewed()
    before = world.state
    world.send(e.Failed(world.held.pop().id, "no feasible plan was found within 10 s"))
    assert (world.state.running, world.state.phase, world.state.error) == (before.running, Phase.READY, "")


def fallen() -> tuple[World, Generation]:
    """A world in which the load has fallen, so that a review has begun, and the generation for the higher load."""
    world = World({1: ONE})
    world.send(e.Tick(100.0, {}))
    world.send(e.DeployRequested(wanted()))
    assert world.state.running is not None
    high = replace(world.state.running, plan=plan(50.0))
    world.state = replace(world.state, running=high)
    world.hold = lambda action: isinstance(action, a.Solve)
    world.ticks([4.0] * 70)
    return world, high


def test_no_review_takes_effect_while_the_deployment_is_paused() -> None:
    world = reviewed()
    running = world.state.running
    world.send(e.PauseRequested(True))
    answer(world, plan(25.0), THREE)
    assert world.state.running is running
    world.ticks([20.0] * 100)
    assert world.held == []


def test_a_load_that_falls_is_reviewed_once_a_period() -> None:
    world, high = fallen()
    assert (held(world).review, held(world).demand_rps) == (True, {"app": 10.0})
    answer(world, high.plan, high.bundle)
    world.ticks([4.0] * 59)
    assert world.held == []
    world.ticks([4.0] * 2)
    assert held(world).review


@pytest.mark.parametrize("window_s", [60, 300])
def test_a_fall_counts_once_the_forecast_of_the_deployment_has_seen_it_for_its_whole_window(window_s: int) -> None:
    world = World({1: ONE})
    world.send(e.DeployRequested(replace(wanted(), forecast="highest", window_s=float(window_s))))
    assert world.state.running is not None
    world.state = replace(world.state, running=replace(world.state.running, plan=plan(50.0)))
    world.hold = lambda action: isinstance(action, a.Solve)
    world.ticks([4.0] * (window_s - 5))
    assert world.held == []
    world.ticks([4.0] * 10)
    assert held(world).review


def test_the_next_controller_keeps_the_period_that_the_user_has_set() -> None:
    world = World({1: ONE})
    world.send(e.DeployRequested(replace(wanted(), period_s=200.0)))
    state = recovered(checkpointed(world.state))
    assert state is not None and state.running is not None
    high = replace(state.running, plan=plan(50.0))
    world = World({}, state=replace(state, running=high, settings=LEARNED))
    world.hold = lambda action: isinstance(action, a.Solve)
    world.ticks([4.0] * 205)
    answer(world, high.plan, high.bundle)
    world.ticks([4.0] * 199)
    assert world.held == []
    world.ticks([4.0] * 2)
    assert held(world).review


def test_a_graph_whose_load_has_fallen_is_no_longer_overloaded_even_if_its_plan_stays() -> None:
    world = reviewed()
    running = world.state.running
    assert running is not None
    world.state = replace(world.state, overloaded=frozenset({"app"}), running=replace(running, plan=plan(50.0)))
    world.held.clear()
    world.state = replace(world.state, inflight={}, review_at_s=0.0)
    world.ticks([4.0] * 70)
    assert world.state.running is not None
    answer(world, world.state.running.plan, world.state.running.bundle)
    assert not world.state.overloaded


def test_the_history_says_that_a_review_without_effect_left_the_plan_unchanged() -> None:
    world = reviewed()
    before = world.state
    assert before.running is not None
    answer(world, before.running.plan, before.running.bundle)
    assert outcomes(before, world.state) == [(3, "unchanged")]


def test_stages_that_the_shell_has_computed_are_used_unless_something_has_changed_since() -> None:
    world = World({}, hold=lambda _: True)
    world.send(e.DeployRequested(wanted()))
    (solve,) = world.held
    start, stages = world.state.actual, stages_to(world.state.actual, None, generation(ONE))
    shorter = stages[-1:]
    for known, expected in ((start, shorter), (replace(start), stages)):
        world.held = []
        again = World({}, state=world.state, hold=lambda _: True)
        again.send(e.Solved(solve.id, plan(10.0), ONE, known, shorter))
        assert (again.state.stage, *again.state.stages) == expected


@pytest.mark.parametrize(
    ("slices", "price", "expected"),
    [(10, 0.0, False), (9, 0.0, True), (9, 0.5, True), (9, 1.5, False), (7, 1.5, True), (11, 0.0, False)],
)
def test_a_plan_is_worth_a_change_if_it_saves_its_share_and_the_price_of_what_it_changes(
    slices: int, price: float, expected: bool
) -> None:
    """Each of the plans changes one running instance and adds another, which costs nothing."""
    running = replace(plan(10.0), slices_used=10, gpus=placed({0: {"1g@0": "t0.v0", "2g@2": "t1.v0"}}))
    other = replace(running, slices_used=slices, gpus=placed({0: {"1g@0": "t0.v0", "2g@4": "t1.v0"}}))
    assert worth(running, other, price, Settings(review_saves=0.05), ALIKE) is expected


def test_a_plan_that_survives_a_loss_is_worth_a_change_from_one_that_does_not() -> None:
    running = replace(plan(10.0), slices_used=10)
    other = replace(running, slices_used=11, survival=PlanSurvival("node", 0.5, {}))
    assert worth(running, other, 1.0, Settings(), ALIKE)
    assert not worth(other, other, 1.0, Settings(), ALIKE)
    assert not worth(other, replace(running, slices_used=1), 0.0, Settings(), ALIKE)


def test_a_plan_that_saves_a_small_share_of_the_slices_is_not_worth_a_change() -> None:
    running = replace(plan(10.0), slices_used=100)
    for slices, expected in ((96, False), (95, True)):
        assert worth(running, replace(running, slices_used=slices), 0.0, Settings(review_saves=0.05), ALIKE) is expected


def test_a_review_of_a_fallen_load_is_dropped_if_the_load_has_risen_again() -> None:
    world, high = fallen()
    assert held(world).review
    world.ticks([40.0] * 8)
    answer(world, plan(10.0), TWO)
    assert world.state.running is high


def test_a_review_that_ends_with_a_constructed_plan_is_not_repeated_at_once() -> None:
    world = reviewed()
    answer(world, first(25.0), THREE)
    assert world.state.running is not None and world.state.running.bundle == THREE
    assert world.held == []
    world.ticks([20.0] * 61)
    assert held(world).review


def test_a_plan_that_the_load_called_for_is_dropped_after_a_pause() -> None:
    world = World({1: ONE})
    world.send(e.Tick(100.0, {}))
    world.send(e.DeployRequested(wanted()))
    running = world.state.running
    world.hold = lambda action: isinstance(action, a.Solve)
    world.ticks([9.0] * 15)
    world.ticks([20.0] * 4)
    assert held(world).first
    world.send(e.PauseRequested(True))
    answer(world, first(25.0), TWO)
    assert (world.state.phase, world.state.running) == (Phase.READY, running)
    assert world.reports[-1] == ("paused", "the plan that the load called for is dropped, because the user has paused")
