"""A controller that dies at any moment, and the next one that goes on."""

from dataclasses import replace

import pytest

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.generation import ChangeRequest
from jigsaw_triton.controller.core.recovery import kept, least, recovered, unfinished
from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.controller.core.transition import lingering
from tests.controller.worlds import World, bundle, wanted, worker

ONE = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))])
MOVED = bundle(2, [worker("0/2g@0", ("t0", "a"), generation=2), worker("1/1g@0", ("t1", "b"), generation=2)])
SWAPPED = bundle(2, [worker("0/1g@0", ("t0", "b"), generation=2), worker("0/1g@1", ("t1", "a"))])


def crashed(target: Bundle, actions: int) -> State:
    """State of the checkpoint when the controller dies at the given number of actions of an update."""
    world = World({1: ONE, 2: target})
    world.send(e.DeployRequested(wanted()))
    done = len(world.done)
    world.hold = lambda _: len(world.done) - done >= actions
    world.send(e.DeployRequested(wanted(20.0)))
    return world.state


def gone_on(state: State) -> World:
    """The world after the next controller has gone on from a checkpoint to rest."""
    after = recovered(state)
    assert after is not None
    world = World({}, state=after)
    world.ticks([10.0] * 120)
    return world


@pytest.mark.parametrize("actions", range(16))
@pytest.mark.parametrize("target", [MOVED, SWAPPED], ids=["moved", "swapped"])
def test_an_update_that_was_broken_off_at_any_action_leaves_one_whole_generation(target: Bundle, actions: int) -> None:
    state = crashed(target, actions)
    committed = state.running is not None and state.running.bundle == target
    world = gone_on(state)
    serves = target if committed else ONE
    assert world.state.phase is Phase.READY
    assert world.state.running is not None and world.state.running.bundle == serves
    assert dict(world.state.actual.workers) == dict(serves.workers)
    assert world.state.actual.fronts == {"app": serves.graphs["app"].front}
    for task in serves.graphs["app"].tasks:
        assert world.state.actual.routes[task.name] == task.route
    assert lingering(world.state.actual, world.state.running) == ((), ())


@pytest.mark.parametrize("actions", range(16))
@pytest.mark.parametrize("target", [MOVED, SWAPPED], ids=["moved", "swapped"])
def test_what_is_not_kept_makes_no_difference(target: Bundle, actions: int) -> None:
    state = crashed(target, actions)
    assert recovered(kept(state)) == recovered(state)
    assert unfinished(kept(state)) == unfinished(state)
    if state.phase is Phase.CHANGING and state.running is not None and state.running.bundle == ONE:
        assert (kept(state).pending, kept(state).stages) == (None, ())


def test_what_the_user_asked_for_is_asked_for_again_until_it_serves() -> None:
    for actions in range(16):
        state = crashed(MOVED, actions)
        committed = state.running is not None and state.running is state.pending
        asked = unfinished(state)
        if committed or state.phase is Phase.READY:
            assert asked is None
        else:
            assert asked is not None and asked.demand_rps == {"app": 20.0}


def test_a_front_that_was_being_switched_is_switched_again() -> None:
    state = replace(crashed(SWAPPED, 99), inflight={7: a.Flip("app", SWAPPED.graphs["app"].front)})
    assert least(state).fronts == {}


def test_what_was_being_removed_counts_as_gone() -> None:
    state = crashed(ONE, 99)
    gone = state.actual.workers["n-0-1g-0"]
    assert gone.name not in least(replace(state, inflight={7: a.Retire(gone)})).workers


def test_a_deployment_that_never_served_begins_anew() -> None:
    world = World({1: ONE}, hold=lambda action: isinstance(action, a.BringUp))
    world.send(e.DeployRequested(wanted()))
    assert recovered(world.state) is None
    assert unfinished(world.state) == ChangeRequest(wanted())


def test_a_deployment_that_was_going_down_goes_down() -> None:
    world = World({1: ONE})
    world.send(e.DeployRequested(wanted()))
    world.hold = lambda _: True
    world.send(e.DownRequested())
    assert unfinished(world.state) is None
    after = gone_on(world.state)
    assert after.state.phase is Phase.STOPPED
    assert not after.state.actual.workers and not after.state.actual.gateway


def test_a_restart_that_was_under_way_is_begun_again() -> None:
    world = World({1: ONE}, hold=lambda action: isinstance(action, a.RestartWorker))
    world.send(e.DeployRequested(wanted()))
    world.send(e.WorkerExited("n-0-1g-0", "signal 9"))
    assert world.state.restarts["n-0-1g-0"].waiting
    after = recovered(world.state)
    assert after is not None and not after.restarts["n-0-1g-0"].waiting
    next_world = World({}, state=after)
    next_world.send(e.WorkerExited("n-0-1g-0", "while no controller ran"))
    assert [type(action) for action in next_world.done] == [a.RestartWorker]


def test_a_request_that_failed_is_not_repeated() -> None:
    world = World({1: ONE, 2: MOVED})
    world.send(e.DeployRequested(wanted()))
    world.fault = lambda action: "broken" if isinstance(action, a.LoadGateway) else ""
    # The undo of the failed change is under way when the controller dies.
    world.hold = lambda _: world.state.rolling_back
    world.send(e.DeployRequested(wanted(20.0)))
    assert world.state.rolling_back and world.state.asked is not None
    assert unfinished(world.state) is None


def test_samples_from_before_the_death_are_dropped() -> None:
    world = World({1: ONE})
    world.send(e.DeployRequested(wanted()))
    world.ticks([10.0] * 5)
    assert world.state.demand
    after = recovered(world.state)
    assert after is not None and {one.samples for one in after.demand.values()} == {()}


def test_what_was_learned_of_the_load_outlives_the_controller() -> None:
    world = World({1: ONE})
    world.send(e.DeployRequested(wanted()))
    world.ticks([10.0] * 1000)
    after = recovered(world.state)
    assert after is not None
    (before,), (kept,) = world.state.demand.values(), after.demand.values()
    assert (kept.bursts, kept.season) == (before.bursts, before.season)
    assert kept.bursts.load > 0
