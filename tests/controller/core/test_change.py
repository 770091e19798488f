"""Changes that fail on the way, and their end."""

from dataclasses import replace

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.recovery import recovered
from jigsaw_triton.controller.core.service import troubles
from jigsaw_triton.controller.core.state import Phase
from tests.controller.worlds import ONE, TWO, World, bundle, checkpointed, deployed, phase, wanted, worker


def test_a_failed_first_deployment_is_taken_down() -> None:
    world = World({1: ONE}, fault=lambda x: "model does not load" if isinstance(x, a.LoadGateway) else "")
    world.send(e.DeployRequested(wanted()))
    assert world.state.phase is Phase.STOPPED
    assert world.state.error == "model does not load"
    assert not world.state.actual.workers and not world.state.actual.gateway


def test_an_update_that_fails_before_the_switch_is_rolled_back() -> None:
    world = deployed(World({1: ONE, 2: TWO}))
    world.fault = lambda x: "does not start" if isinstance(x, a.LoadGateway) else ""
    world.send(e.DeployRequested(wanted(20.0)))
    assert world.state.phase is Phase.READY
    assert world.state.error == "does not start"
    assert dict(world.state.actual.workers) == dict(ONE.workers)
    assert world.state.running is not None and world.state.running.bundle == ONE
    assert ("ready", "rolled back: the previous generation still serves") in world.reports
    assert any(text.endswith("switch the fronts to the generation that serves") for _, text in world.reports)


def partly_restored() -> World:
    """A world whose second generation did not start, and whose rollback failed, so that routes of both are left."""
    world = deployed(World({1: ONE, 2: TWO, 3: bundle(3, ONE.workers.values())}))
    world.fault = lambda x: "stuck" if isinstance(x, a.Flip | a.UnloadGateway) else ""
    world.send(e.DeployRequested(wanted(20.0)))
    assert world.state.phase is Phase.READY and world.state.restore_at_s is not None
    assert "app.t0.g2" in world.state.actual.routes
    assert troubles(world.state) == (
        "the last change could not be completed or undone in full; the controller tries again",
    )
    return world


def test_a_failed_rollback_is_repeated_until_the_running_generation_is_restored() -> None:
    world = partly_restored()
    world.ticks([9.0] * 12)
    assert "could not be completed or undone" in troubles(world.state)[0]
    world.fault = lambda x: ""
    world.ticks([9.0] * 12)
    assert troubles(world.state) == ()
    assert world.state.actual.routes.keys() == {"app.t0.g1", "app.t1.g1"}
    assert world.state.running is not None and world.state.running.bundle == ONE


def with_old_routes() -> World:
    """A world whose second generation serves, but whose routes of the first one could not be changed at the switch."""
    moved = [worker("0/1g@0", ("t0", "a")), worker("1/1g@0", ("t1", "b"), generation=2)]
    world = deployed(World({1: ONE, 2: bundle(2, moved), 3: bundle(3, moved)}))
    world.fault = lambda x: "the disk is full" if isinstance(x, a.SetRoutes) and phase_after_switch(world) else ""
    world.send(e.DeployRequested(wanted(20.0)))
    return world


def phase_after_switch(world: World) -> bool:
    return world.state.running is not None and world.state.running is world.state.pending


def test_workers_to_which_old_routes_lead_go_on_until_these_routes_are_gone() -> None:
    world = with_old_routes()
    assert world.state.phase is Phase.READY and world.state.running is not None
    assert (world.state.running.bundle.generation, world.state.error) == (2, "")
    assert "n-0-1g-1" in {entry.worker for entry in world.state.actual.routes["app.t1.g1"]}
    assert "n-0-1g-1" in world.state.actual.workers
    assert "could not be completed" in troubles(world.state)[0]
    world.fault = lambda _: ""
    world.ticks([9.0] * 12)
    assert world.state.actual.workers.keys() == {"n-0-1g-0", "n-1-1g-0"}
    assert world.state.actual.routes.keys() == {"app.t0.g2", "app.t1.g2"}
    assert troubles(world.state) == ()
    assert world.reports[-1] == ("ready", "restored: the generation that serves is complete")


def test_a_change_first_removes_old_routes_that_could_not_be_changed() -> None:
    world = with_old_routes()
    world.fault, done = lambda _: "", len(world.done)
    world.send(e.DeployRequested(wanted(20.0)))
    removed, *rest = world.done[done:]
    assert removed == a.UnloadGateway(("app.t0.g1", "app.t1.g1"))
    assert [action.worker.name for action in rest if isinstance(action, a.Retire)] == ["n-0-1g-1"]


def test_the_load_is_followed_although_a_rollback_fails_again_and_again() -> None:
    world = partly_restored()
    world.fault = lambda x: "stuck" if isinstance(x, a.Flip | a.UnloadGateway | a.Solve) else ""
    before = world.state.next_generation
    world.ticks([500.0] * 30)
    assert world.state.next_generation > before


def test_a_replan_that_fails_again_and_again_does_not_keep_a_generation_incomplete() -> None:
    world = partly_restored()
    world.fault = lambda x: "no plan" if isinstance(x, a.Solve) else ""
    world.state = replace(world.state, replan="a GPU is lost")
    world.ticks([9.0] * 30)
    assert world.state.replan and world.state.restore_at_s is None


def test_the_next_controller_repeats_a_failed_rollback() -> None:
    world = partly_restored()
    state = recovered(checkpointed(world.state))
    assert state is not None
    world.state, world.fault = state, lambda x: ""
    world.ticks([9.0] * 12)
    assert world.state.restore_at_s is None
    assert world.state.actual.routes.keys() == {"app.t0.g1", "app.t1.g1"}


def test_deploying_the_running_plan_again_completes_a_failed_rollback() -> None:
    world = partly_restored()
    world.fault = lambda x: ""
    world.send(e.DeployRequested(wanted(10.0)))
    assert world.state.phase is Phase.READY and world.state.restore_at_s is None
    assert world.state.running is not None and world.state.running.bundle.generation == 3
    world.ticks([9.0] * 40)
    assert world.state.actual.routes.keys() == {"app.t0.g3", "app.t1.g3"}


def test_the_new_generation_serves_even_if_cleaning_up_the_old_one_fails() -> None:
    world = deployed(World({1: ONE, 2: TWO}))
    world.fault = lambda x: "stuck" if isinstance(x, a.UnloadGateway) else ""
    world.send(e.DeployRequested(wanted(20.0)))
    assert world.state.phase is Phase.READY
    assert world.state.running is not None and world.state.running.bundle == TWO


def test_down_during_a_change_waits_for_actions_in_flight() -> None:
    world = World({1: ONE}, hold=lambda x: isinstance(x, a.BringUp))
    world.send(e.DeployRequested(wanted()))
    world.send(e.DownRequested())
    assert phase(world) == "stopping"
    assert "StopGateway" not in world.kinds()
    world.end()
    assert world.state.phase is Phase.STOPPED
    assert not world.state.actual.workers


def test_down_ends_even_when_a_worker_cannot_be_retired() -> None:
    world = deployed(World({1: ONE}))
    world.fault = lambda x: "in use by process 4711" if isinstance(x, a.Retire) else ""
    world.send(e.DownRequested())
    assert world.state.phase is Phase.STOPPED
    assert ("error", "in use by process 4711") in world.reports
