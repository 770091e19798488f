"""A controller that dies at any moment, and the next one that goes on."""

from dataclasses import fields, replace

import pytest

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.bursts import Bursts
from jigsaw_triton.controller.core.canary import Watch
from jigsaw_triton.controller.core.demand import Demand, Sample
from jigsaw_triton.controller.core.gateway_content import lingering
from jigsaw_triton.controller.core.generation import Canary, ChangeRequest
from jigsaw_triton.controller.core.recovery import essential, least, recovered, unfinished
from jigsaw_triton.controller.core.rows import Count, Source
from jigsaw_triton.controller.core.slowness import Kind, Served, Times
from jigsaw_triton.controller.core.standby import RecentArrivals
from jigsaw_triton.controller.core.state import Phase, Restarts, State
from jigsaw_triton.gpus.model import GpuId
from tests.controller.worlds import ONE, World, bundle, checkpointed, wanted, worker

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
    after = recovered(checkpointed(state))
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


def test_a_checkpoint_lacks_only_what_belongs_to_the_change_in_progress_or_the_present_load() -> None:
    state = full_state()
    removing = {7: state.inflight[7]}
    learned = {"app": Demand(bursts=state.demand["app"].bursts)}
    assert changed(state, essential(state)) == {
        "stalled": frozenset(),
        "inflight": removing,
        "stages": (),
        "stage": None,
        "watch": None,
        "stage_ids": frozenset(),
        "solved": None,
        "carried": None,
        "demand": learned,
        "pending": None,
        "failed": False,
        "arrivals": {},
        "reorder": False,
    }
    committed = essential(replace(state, pending=state.running))
    assert committed.pending is state.running


def full_state() -> State:
    """A state in which each field has another value than at the start."""
    state = crashed(MOVED, 1)
    assert state.running is not None and state.wanted is not None
    front, served = ONE.graphs["app"].front, Served("app", "t0", "a", "n-0-1g-0")
    kind, canary = Kind("app", "t0", "a", "A100-80GB", "1g"), Canary(0.1, 60.0)
    solve = a.Solve(state.wanted, {"app": 20.0}, 2, "reason", state.running, state.wanted.graphs)
    demand = Demand(bursts=Bursts(load=1.0)).with_sample(Sample(1.0, 10.0), state.settings)
    full = replace(
        state,
        now_s=1.0,
        solved=(solve, e.Solved(1, state.running.plan, ONE)),
        watch=Watch(canary, 1, 2, {}),
        inflight={6: a.BringUp(MOVED.workers["n-0-2g-0"]), 7: a.Flip("app", front)},
        failed=True,
        rolling_back=True,
        reorder=True,
        restore_at_s=1.0,
        queued=ChangeRequest(wanted(30.0)),
        paused=True,
        restarts={"gateway": Restarts((1.0,))},
        stalled=frozenset({"gateway"}),
        lost=frozenset({GpuId("n", 1)}),
        cordoned=frozenset({"n"}),
        replan="a GPU is lost",
        replan_at_s=1.0,
        carried=solve,
        demand={"app": demand},
        counts={Source("app", "t0", "a", "ROWS"): Count(3.0, 2.0)},
        times={served: Times(1.0, 1.0, 1.0)},
        slow={served: 2.0},
        slow_kinds={kind: 2.0},
        slow_planned={kind: 2.0},
        arrivals={"app": RecentArrivals(10.0)},
        standby=frozenset({"app"}),
        switch_at_s=1.0,
        overloaded=frozenset({"app"}),
        quiet_until_s=1.0,
        review_at_s=1.0,
        linger_until_s=1.0,
        error="broken",
        error_code=1,
        asked_error="broken",
        asked_error_code=1,
    )
    assert changed(State(), full).keys() == {field.name for field in fields(State)}
    return full


def changed(before: State, after: State) -> dict[str, object]:
    """Fields that differ between two states, and their later values."""
    names = [field.name for field in fields(State)]
    return {name: getattr(after, name) for name in names if getattr(before, name) != getattr(after, name)}


def test_what_the_user_asked_for_is_asked_for_again_until_it_serves() -> None:
    for actions in range(16):
        state = crashed(MOVED, actions)
        committed = state.running is not None and state.running is state.pending
        asked = unfinished(checkpointed(state))
        if committed or state.phase is Phase.READY:
            assert asked is None
        else:
            assert asked is not None and asked.demand_rps == {"app": 20.0}


def test_a_change_is_not_undone_if_the_generation_before_it_cannot_answer_without_the_lost_gpus() -> None:
    state = replace(crashed(MOVED, 3), lost=frozenset({GpuId("n", 0)}))
    after = recovered(checkpointed(state))
    assert after is not None and (after.phase, after.stages, after.restore_at_s) == (Phase.READY, (), state.now_s)
    assert after.actual.workers.keys() == least(state).workers.keys()


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
    assert recovered(checkpointed(world.state)) is None
    assert unfinished(checkpointed(world.state)) == ChangeRequest(wanted())


def test_a_deployment_that_was_going_down_goes_down() -> None:
    world = World({1: ONE})
    world.send(e.DeployRequested(wanted()))
    world.hold = lambda _: True
    world.send(e.DownRequested())
    assert unfinished(checkpointed(world.state)) is None
    after = gone_on(world.state)
    assert after.state.phase is Phase.STOPPED
    assert not after.state.actual.workers and not after.state.actual.gateway


def test_a_restart_that_was_under_way_is_begun_again() -> None:
    world = World({1: ONE}, hold=lambda action: isinstance(action, a.RestartWorker))
    world.send(e.DeployRequested(wanted()))
    world.send(e.WorkerExited("n-0-1g-0", "signal 9"))
    assert world.state.restarts["n-0-1g-0"].waiting
    after = recovered(checkpointed(world.state))
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
    assert unfinished(checkpointed(world.state)) is None


def test_samples_from_before_the_death_are_dropped() -> None:
    world = World({1: ONE})
    world.send(e.DeployRequested(wanted()))
    world.ticks([10.0] * 5)
    assert world.state.demand
    after = recovered(checkpointed(world.state))
    assert after is not None and {one.samples for one in after.demand.values()} == {()}


def test_what_was_learned_of_the_load_outlives_the_controller() -> None:
    world = World({1: ONE})
    world.send(e.DeployRequested(wanted()))
    world.ticks([10.0] * 1000)
    after = recovered(checkpointed(world.state))
    assert after is not None
    (before,), (kept,) = world.state.demand.values(), after.demand.values()
    assert (kept.bursts, kept.season) == (before.bursts, before.season)
    assert kept.bursts.load > 0
