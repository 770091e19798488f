"""Restarts of servers that ended unexpectedly."""

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.outcome import issue
from jigsaw_triton.controller.core.service import troubles, unserved
from jigsaw_triton.controller.core.state import Phase
from tests.controller.worlds import ONE, World, bundle, deployed, wanted, worker


def test_a_dead_worker_is_restarted_with_its_models() -> None:
    world = deployed(World({1: ONE}, hold=lambda action: isinstance(action, a.RestartWorker)))
    world.send(e.WorkerExited("n-0-1g-0", "signal 9"))
    cause = "worker n-0-1g-0 ended unexpectedly (signal 9)"
    assert troubles(world.state) == (f"n-0-1g-0 is restarting: {cause}",)
    world.end()
    assert world.done[-1] == a.RestartWorker(ONE.workers["n-0-1g-0"], 0.0)
    assert troubles(world.state) == ()


def test_a_worker_that_keeps_dying_is_restarted_after_ever_longer_delays_up_to_a_limit() -> None:
    world = deployed(World({1: ONE}))
    for _ in range(9):
        world.send(e.WorkerExited("n-0-1g-0", "signal 9"))
    delays = [x.delay_s for x in world.done if isinstance(x, a.RestartWorker)]
    assert delays == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert world.state.settings.backoff_s(5000) == 30.0
    world.ticks([9.0] * int(world.state.settings.restart_window_s))
    world.send(e.WorkerExited("n-0-1g-0", "signal 9"))
    assert world.done[-1] == a.RestartWorker(ONE.workers["n-0-1g-0"], 0.0)


def test_a_gateway_that_keeps_dying_is_restarted() -> None:
    world = deployed(World({1: ONE}))
    for _ in range(9):
        world.send(e.GatewayExited("signal 11"))
    assert world.kinds()[-9:] == ["RestartGateway"] * 9
    assert unserved(world.state) == ()


def test_a_failed_restart_is_retried() -> None:
    world = deployed(World({1: ONE}))
    faults = ["does not start", ""]
    world.fault = lambda x: faults.pop(0) if isinstance(x, a.RestartWorker) and faults else ""
    world.send(e.WorkerExited("n-0-1g-0", "signal 9"))
    assert troubles(world.state) == ()
    errors = [text for kind, text in world.reports if kind == "error"]
    exited = "worker n-0-1g-0 ended unexpectedly (signal 9); restarting it now"
    assert errors == [exited, "does not start; restarting it in 1 s"]
    assert ("restart", "n-0-1g-0 serves again") in world.reports


def test_a_restarted_gateway_loads_the_fronts_of_tasks_before_those_of_graphs() -> None:
    world = deployed(World({1: bundle(1, ONE.workers.values(), target="ensemble")}))
    world.send(e.GatewayExited("signal 9"))
    action = world.done[-1]
    assert isinstance(action, a.RestartGateway)
    assert [m.name for m in action.models] == ["app.t0.g1", "app.t1.g1", "app"]


def test_a_worker_that_dies_while_it_is_retired_is_not_restarted() -> None:
    old = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))])
    new = bundle(2, [worker("0/1g@0", ("t0", "a")), worker("0/1g@2", ("t1", "b"), generation=2)])
    world = deployed(World({1: old, 2: new}, hold=lambda x: isinstance(x, a.Retire | a.RestartWorker)))
    world.send(e.DeployRequested(wanted(20.0)))
    world.send(e.WorkerExited("n-0-1g-1", "signal 9"))
    (retire,) = world.held
    assert isinstance(retire.action, a.Retire)
    world.send(e.Done(retire.id))
    assert world.state.phase is Phase.READY
    assert set(world.state.actual.workers) == {"n-0-1g-0", "n-0-1g-2"}


def test_a_worker_that_is_retired_while_it_is_restarted_does_no_harm() -> None:
    old = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))])
    new = bundle(2, [worker("0/1g@0", ("t0", "a")), worker("0/1g@2", ("t1", "b"), generation=2)])
    world = deployed(World({1: old, 2: new}, hold=lambda x: isinstance(x, a.RestartWorker)))
    world.send(e.WorkerExited("n-0-1g-1", "signal 9"))
    (restart,) = world.held
    world.send(e.DeployRequested(wanted(20.0)))
    assert world.state.phase is Phase.READY
    world.send(e.Failed(restart.id, "there is no such worker"))
    assert len(world.held) == 1
    assert set(world.state.actual.workers) == {"n-0-1g-0", "n-0-1g-2"}


STANDBY = bundle(1, [worker("0/1g@0", ("t0", "a"), ("t0", "b"))])
NAME = "n-0-1g-0"


def unloading(world: World) -> World:
    """A deployed world in which one of the two models of a worker is to be unloaded."""
    world = deployed(world)
    world.hold = lambda action: isinstance(action, a.UnloadModels | a.RestartWorker)
    world.state, (issued,) = issue(world.state, [a.UnloadModels(NAME, ("app.t0.b.g1",))])
    assert isinstance(issued, a.Issued)
    world.held.append(issued)
    return world


def loaded(world: World) -> tuple[str, ...]:
    return tuple(model.name for model in world.state.actual.workers[NAME].models)


def test_a_worker_that_dies_while_a_model_is_unloaded_is_restarted_without_it() -> None:
    world = unloading(World({1: STANDBY}))
    world.send(e.WorkerExited(NAME, "signal 9"))
    restart = world.held[-1].action
    assert isinstance(restart, a.RestartWorker)
    assert [model.name for model in restart.worker.models] == ["app.t0.a.g1"]
    world.end()
    assert loaded(world) == ("app.t0.a.g1",)
    assert [type(action) for action in world.done[-2:]] == [a.UnloadModels, a.RestartWorker]


def test_a_model_that_is_unloaded_during_the_restart_of_its_worker_is_unloaded_again() -> None:
    world = deployed(World({1: STANDBY}))
    world.hold = lambda action: isinstance(action, a.UnloadModels | a.RestartWorker)
    world.send(e.WorkerExited(NAME, "signal 9"))
    world.state, (issued,) = issue(world.state, [a.UnloadModels(NAME, ("app.t0.b.g1",))])
    assert isinstance(issued, a.Issued)
    world.send(world.outcome(issued))
    assert loaded(world) == ("app.t0.a.g1",)
    world.end()
    assert [held.action for held in world.held] == [a.UnloadModels(NAME, ("app.t0.b.g1",))]
    assert loaded(world) == ("app.t0.a.g1", "app.t0.b.g1")
    world.end()
    assert loaded(world) == ("app.t0.a.g1",)
    assert world.state.inflight == {}


def test_a_model_that_cannot_be_unloaded_after_a_restart_is_unloaded_by_the_next_change() -> None:
    world = deployed(World({1: STANDBY, 2: bundle(2, [worker("0/1g@0", ("t0", "a"))])}))
    world.hold = lambda action: isinstance(action, a.RestartWorker)
    world.fault = lambda action: "it does not answer" if isinstance(action, a.UnloadModels) else ""
    world.send(e.WorkerExited(NAME, "signal 9"))
    world.state, (issued,) = issue(world.state, [a.UnloadModels(NAME, ("app.t0.b.g1",))])
    assert isinstance(issued, a.Issued)
    world.send(e.Done(issued.id))
    world.end()
    assert ("error", "it does not answer") in world.reports
    assert loaded(world) == ("app.t0.a.g1", "app.t0.b.g1")
    world.fault = lambda _: ""
    world.send(e.DeployRequested(wanted(20.0)))
    assert loaded(world) == ("app.t0.a.g1",)


def test_a_model_that_was_loaded_just_before_its_worker_died_is_loaded_again() -> None:
    new = bundle(2, [worker("0/1g@0", ("t0", "a"), ("t0", "b"))])
    world = deployed(World({1: bundle(1, [worker("0/1g@0", ("t0", "a"))])}))
    world.hold = lambda action: isinstance(action, a.LoadModels | a.RestartWorker)
    (added,) = (model for model in new.workers[NAME].models if model.name not in loaded(world))
    world.state, (issued,) = issue(world.state, [a.LoadModels(NAME, (added,))])
    assert isinstance(issued, a.Issued)
    world.send(e.WorkerExited(NAME, "signal 9"))
    world.send(e.Done(issued.id))
    assert loaded(world) == ("app.t0.a.g1", added.name)
    world.end()
    (again,) = world.held
    assert again.action == a.LoadModels(NAME, (added,))
    world.send(e.Failed(again.id, "it does not load"))
    restart = world.held[-1].action
    assert isinstance(restart, a.RestartWorker)
    assert added in restart.worker.models
