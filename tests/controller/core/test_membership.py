"""Graphs that join or leave what serves, in the core."""

from dataclasses import replace

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.demand import Demand
from jigsaw_triton.controller.core.generation import ChangeRequest
from jigsaw_triton.controller.core.recovery import unfinished
from jigsaw_triton.controller.core.state import Phase
from jigsaw_triton.planner.domain.plan import CONSTRUCTED, SolverReport
from tests.controller.worlds import ONE, TWO, World, checkpointed, plan, wanted

JOINED = e.DeployRequested(replace(wanted(10.0), period_s=90.0), reason="other added by the user")


def changing(event: e.DeployRequested) -> World:
    """A world that serves, and in which the solve for a change of the graphs has begun."""
    world = World({1: ONE})
    world.send(e.DeployRequested(wanted()))
    world.hold = lambda action: isinstance(action, a.Solve)
    world.send(event)
    return world


def test_graphs_that_stay_are_planned_for_what_is_provided_for_them_and_no_less_than_their_demand() -> None:
    for provided, planned in ((50.0, 50.0), (3.0, 10.0)):
        world = changing(replace(JOINED, provided_rps={"app": provided, "gone": 7.0}))
        (solve,) = (issued.action for issued in world.held)
        assert isinstance(solve, a.Solve)
        assert (solve.demand_rps, solve.may_fall_short, solve.by_user) == ({"app": planned}, True, True)
        assert solve.reason == "other added by the user"


def test_a_demand_that_the_user_asks_for_alone_may_not_fall_short() -> None:
    (solve,) = (issued.action for issued in changing(JOINED).held)
    assert isinstance(solve, a.Solve)
    assert (solve.may_fall_short, solve.by_user) == (False, True)


def test_the_next_controller_asks_again_for_the_same_change() -> None:
    world = changing(replace(JOINED, provided_rps={"app": 50.0}))
    asked = ChangeRequest(JOINED.wanted, JOINED.reason, provided_rps={"app": 50.0})
    assert unfinished(checkpointed(world.state)) == asked


def test_the_load_of_a_graph_that_has_left_is_forgotten() -> None:
    world = changing(JOINED)
    (issued,) = world.held
    world.held = []
    world.state = replace(world.state, demand={"gone": Demand()})
    # A constructed plan is reviewed at once.
    constructed = replace(plan(10.0), solver=SolverReport(CONSTRUCTED, "feasible", 0.1, 0.2))
    world.send(e.Solved(issued.id, constructed, TWO))
    assert world.state.phase is Phase.READY
    assert world.state.demand == {}
    assert world.state.running is not None and world.state.running.bundle == TWO
