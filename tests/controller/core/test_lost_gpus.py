"""GPUs that are lost while a deployment serves."""

from dataclasses import replace

from jigsaw_triton.compiler.bundle import RouteEntry
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.generation import Canary
from jigsaw_triton.controller.core.lost_gpus import without_lost
from jigsaw_triton.controller.core.recovery import recovered
from jigsaw_triton.controller.core.service import troubles
from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.controller.core.transition import stages_to
from jigsaw_triton.gpus.model import Agents, GpuId
from tests.controller.core.transitions import after
from tests.controller.worlds import World, bundle, checkpointed, generation, profiled, wanted, with_contents, worker

ZERO, ONE = GpuId("n", 0), GpuId("n", 1)
BOTH = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("1/1g@0", ("t1", "a"))])
MOVED = bundle(2, [worker("1/1g@1", ("t0", "a"), generation=2), worker("1/1g@0", ("t1", "a"))])


def deployed() -> World:
    world = World({1: BOTH, 2: MOVED, 3: bundle(3, MOVED.workers.values())})
    world.send(e.DeployRequested(wanted()))
    assert world.state.phase is Phase.READY
    return world


def test_workers_of_a_lost_gpu_move_to_the_others() -> None:
    world = deployed()
    world.send(e.GpusLost(frozenset({ZERO})))
    assert ("error", "GPU n/0 is lost, and with it n-0-1g-0; planning on the others") in world.reports
    assert world.state.actual.workers.keys() == MOVED.workers.keys()
    assert world.state.phase is Phase.READY
    assert troubles(world.state) == ("GPU n/0 is lost",)


def test_a_plan_for_the_gpus_that_are_left_may_serve_less_than_the_user_asked_for() -> None:
    world = deployed()
    world.hold = lambda action: isinstance(action, a.Solve)
    world.send(e.GpusLost(frozenset({ZERO})))
    (issued,) = world.held
    solve = issued.action
    assert isinstance(solve, a.Solve)
    assert solve.may_fall_short and solve.lost == {ZERO}
    assert solve.reason == "GPU n/0 is lost, and with it n-0-1g-0"
    assert solve.demand_rps == {"app": 10.0}


def test_requests_end_before_the_last_worker_that_answers_them_gets_another_model() -> None:
    """Until they have ended, the old model of the other worker answers in place of the worker on the lost GPU."""
    one = bundle(1, [worker("0/1g@0", ("t1", "a")), worker("1/1g@0", ("t0", "a")), worker("1/1g@1", ("t1", "a"))])
    two = bundle(2, [worker("1/1g@0", ("t0", "a")), worker("1/1g@1", ("t1", "b"), generation=2)])
    stages = stages_to(after(one), generation(one), generation(two), lost={ZERO})
    orders = [x for stage in stages for x in stage.actions if isinstance(x, a.SetRoutes | a.Settle | a.Retire)]
    assert [type(order).__name__ for order in orders] == ["SetRoutes", "Settle", "SetRoutes", "Retire"]
    closed, at_last = (order.routes["app.t1.g1"] for order in orders if isinstance(order, a.SetRoutes))
    assert [(e.model, e.generations, e.closed) for e in closed] == [
        ("app.t1.b.g2", (2,), False),
        ("app.t1.a.g1", (1,), True),
    ]
    assert {e.worker for e in (*closed, *at_last)} == {"n-1-1g-1"}


def test_a_replica_stands_in_before_the_last_worker_that_answers_makes_room_in_a_rollback() -> None:
    """The other worker that answers the same is on the lost GPU, so that it carries nothing."""
    left = [worker("1/1g@0", ("t0", "a")), worker("1/1g@1", ("t1", "a"))]
    one = with_contents(bundle(1, [worker("0/1g@0", ("t0", "a")), *left]))
    two = bundle(2, [worker("1/2g@0", ("t0", "a"), generation=2), worker("1/1g@2", ("t1", "a"), generation=2)])
    exists = bundle(2, [worker("0/1g@0", ("t0", "a")), *two.workers.values()])
    stages = stages_to(after(with_contents(exists)), profiled(one), without_lost(profiled(one), {ZERO}), lost={ZERO})
    changes = [x for stage in stages for x in stage.actions if isinstance(x, a.BringUp | a.Retire)]
    names = [(type(x).__name__, x.worker.name) for x in changes]
    gone = names.index(("Retire", "n-1-2g-0"))
    (stand_in,) = (name for kind, name in names[:gone] if kind == "BringUp")
    assert stand_in not in one.workers and stand_in.startswith("n-1-1g-")
    assert ("Retire", stand_in) in names[gone:]


def test_a_gpu_that_is_back_during_a_change_answers_from_the_next_stage_on() -> None:
    """The change begins while the GPU is lost."""
    one = bundle(1, [*BOTH.workers.values(), worker("1/1g@3", ("t0", "a"))])
    two = [worker("1/1g@3", ("t0", "b"), generation=2), worker("1/1g@0", ("t1", "a")), worker("1/1g@1", ("t0", "a"))]
    world = World({1: one, 2: bundle(2, two), 3: "no plan"})
    world.send(e.DeployRequested(wanted()))
    world.hold = lambda action: isinstance(action, a.LoadModels | a.BringUp)
    world.send(e.GpusLost(frozenset({ZERO})))
    world.end()
    assert "n-0-1g-0" not in {entry.worker for entry in world.state.actual.routes["app.t0.g1"]}
    done = len(world.done)
    world.send(e.GpusLost(frozenset()))
    world.end()
    returned = next(action for action in world.done[done:] if isinstance(action, a.SetRoutes))
    assert "n-0-1g-0" in {entry.worker for entry in returned.routes["app.t0.g1"] if not entry.closed}


def test_without_any_worker_for_a_task_a_new_one_takes_its_requests() -> None:
    one = bundle(1, [worker("0/1g@0", ("t1", "a")), worker("1/1g@0", ("t0", "a"))])
    two = bundle(2, [worker("1/1g@1", ("t1", "b"), generation=2), worker("1/1g@0", ("t0", "a"))])
    stages = stages_to(after(one), generation(one), generation(two), lost={ZERO})
    actions = [action for stage in stages for action in stage.actions]
    routes = next(x.routes for x in actions if isinstance(x, a.SetRoutes))
    assert [(e.worker, e.generations) for e in routes["app.t1.g1"]] == [("n-1-1g-1", (2,))]


def test_a_gpu_that_is_lost_during_a_change_orders_the_rest_of_it_anew() -> None:
    world = World({1: BOTH, 2: bundle(2, [worker("0/1g@0", ("t0", "a")), worker("1/1g@2", ("t1", "b"), generation=2)])})
    world.send(e.DeployRequested(wanted()))
    world.hold = lambda action: isinstance(action, a.BringUp)
    world.send(e.DeployRequested(wanted(20.0)))
    assert world.state.phase is Phase.CHANGING
    world.send(e.GpusLost(frozenset({ZERO})))
    world.hold = lambda action: isinstance(action, a.Solve)
    world.end()
    text = "what serves has changed, so the stages of the rest of the change are computed again"
    assert ("transition", text) in world.reports


def test_a_plan_that_fails_says_which_gpus_it_had_to_do_without() -> None:
    world = deployed()
    world.send(e.GpusLost(frozenset({ZERO})))
    world.fault = lambda action: "no plan is feasible" if isinstance(action, a.Solve) else ""
    world.send(e.DeployRequested(wanted(20.0)))
    assert world.state.error == "no plan is feasible (planned without the lost GPUs n/0)"


def test_a_gpu_that_stays_lost_is_reported_and_planned_around_once() -> None:
    world = deployed()
    world.send(e.GpusLost(frozenset({ZERO})))
    reports, number = list(world.reports), world.state.next_generation
    world.send(e.GpusLost(frozenset({ZERO})))
    assert world.reports == reports and world.state.next_generation == number


def test_a_gpu_that_is_lost_during_a_change_is_planned_around_after_it() -> None:
    world = World({1: BOTH, 2: BOTH, 3: MOVED})
    world.send(e.DeployRequested(wanted()))
    world.hold = lambda action: isinstance(action, a.Solve)
    world.send(e.DeployRequested(wanted(20.0)))
    world.send(e.GpusLost(frozenset({ZERO})))
    assert len(world.held) == 1
    world.end()
    assert len(world.held) == 1
    world.end()
    assert world.state.actual.workers.keys() == MOVED.workers.keys()


def test_a_gpu_that_is_back_is_planned_with() -> None:
    world = deployed()
    world.send(e.GpusLost(frozenset({ZERO})))
    number = world.state.next_generation
    world.send(e.GpusLost(frozenset()))
    assert ("gpu", "GPU n/0 is back; planning with it") in world.reports
    assert world.state.next_generation == number + 1
    assert troubles(world.state) == ()


def test_lost_gpus_of_other_clusters_do_not_matter() -> None:
    world = deployed()
    world.send(e.GpusLost(frozenset({GpuId("n", 5)})))
    assert troubles(world.state) == ()
    assert world.state.next_generation == 2


def test_a_plan_around_a_lost_gpu_is_tried_again_until_it_serves() -> None:
    world = World({1: BOTH, 2: "no plan", 3: "no plan", 4: MOVED})
    world.send(e.DeployRequested(wanted()))
    world.send(e.GpusLost(frozenset({ZERO})))
    assert world.state.next_generation == 3
    world.ticks([8.0] * 9)
    assert world.state.next_generation == 3
    world.ticks([8.0] * 20)
    assert world.state.actual.workers.keys() == MOVED.workers.keys()
    world.ticks([8.0] * 30)
    assert world.state.next_generation == 5


def test_the_next_controller_plans_around_a_gpu_that_was_lost_before() -> None:
    world = deployed()
    world.hold = lambda action: isinstance(action, a.Solve)
    world.send(e.GpusLost(frozenset({ZERO})))
    world.state = recovered(checkpointed(world.state)) or State()
    world.hold, world.held = lambda _: False, []
    world.bundles = {3: bundle(3, MOVED.workers.values())}
    world.ticks([8.0] * 11)
    assert world.state.actual.workers.keys() == MOVED.workers.keys()


def test_a_lost_gpu_ends_a_canary() -> None:
    beside = bundle(2, [worker("0/1g@0", ("t0", "b"), generation=2), worker("1/1g@0", ("t1", "a"))])
    world = World({1: BOTH, 2: beside, 3: bundle(3, MOVED.workers.values())})
    world.send(e.DeployRequested(wanted()))
    world.send(e.DeployRequested(wanted(20.0), Canary(0.05, 300.0)))
    assert world.state.watch is not None and world.state.watch.verdict is None
    world.send(e.GpusLost(frozenset({ZERO})))
    assert ("canary", "rolled back: GPU n/0 is lost") in world.reports
    assert world.state.actual.workers.keys() == MOVED.workers.keys()


def test_a_canary_answers_on_if_the_generation_before_it_cannot_answer_without_a_lost_gpu() -> None:
    canary = bundle(2, [worker("1/1g@1", ("t0", "b"), generation=2), worker("1/1g@2", ("t1", "b"), generation=2)])
    three = bundle(3, [worker("1/1g@3", ("t0", "a"), generation=3), worker("1/1g@0", ("t1", "a"))])
    world = World({1: BOTH, 2: canary, 3: three})
    world.send(e.DeployRequested(wanted()))
    world.send(e.DeployRequested(wanted(20.0), Canary(0.05, 300.0)))
    done = len(world.done)
    world.hold = lambda action: isinstance(action, a.Solve)
    world.send(e.GpusLost(frozenset({ZERO})))
    assert "no rollback, since the previous generation cannot answer" in world.reports[-1][1]
    (led,) = world.done[done:]
    assert isinstance(led, a.SetRoutes)
    opened = {name: [entry.model for entry in route if not entry.closed] for name, route in led.routes.items()}
    assert opened == {"app.t0.g1": ["app.t0.b.g2"], "app.t1.g1": ["app.t1.b.g2"]}
    # The generation's own workers would be restored after the cooldown if no plan were made before that.
    world.ticks([8.0] * 11)
    assert world.state.phase is Phase.SOLVING and len(world.done) == done + 1
    world.hold = lambda _: False
    world.end()
    assert world.state.actual.workers.keys() == three.workers.keys() and world.state.restore_at_s is None
    first = next(action for action in world.done[done:] if isinstance(action, a.BringUp | a.Retire))
    assert isinstance(first, a.BringUp)


def test_new_requests_leave_a_generation_without_a_worker_for_a_task_before_a_change_goes_on() -> None:
    two = bundle(2, [worker("1/1g@1", ("t0", "b"), generation=2), worker("1/1g@0", ("t1", "a"))])
    world = World({1: BOTH, 2: two})
    world.send(e.DeployRequested(wanted()))
    world.hold = lambda action: isinstance(action, a.BringUp)
    world.send(e.DeployRequested(wanted(20.0)))
    beside: dict[str, list[tuple[str, str, tuple[int, ...]]]] = {
        "t0": [("n-0-1g-0", "a.g1", (1,)), ("n-1-1g-1", "b.g2", (2,))],
        "t1": [("n-1-1g-0", "a.g1", (1, 2))],
    }
    workers = {**world.state.actual.workers, **two.workers}
    routes = {
        f"app.{task}.g1": tuple(RouteEntry(at, f"app.{task}.{model}", 4, 1, generations=g) for at, model, g in entries)
        for task, entries in beside.items()
    }
    world.state = replace(world.state, actual=replace(world.state.actual, workers=workers, routes=routes))
    done = len(world.done)
    world.send(e.GpusLost(frozenset({ZERO})))
    (led,) = world.done[done:]
    assert isinstance(led, a.SetRoutes) and led.routes == {"app.t0.g1": routes["app.t0.g1"][1:]}
    assert len(world.held) == 1


def test_new_requests_leave_a_generation_without_a_worker_for_a_task_before_a_rollback_starts_workers() -> None:
    one = bundle(1, [worker("1/1g@0", ("t1", "a")), *(worker(f"1/1g@{n}", ("t0", "a")) for n in (1, 2))])
    two = bundle(2, [worker("0/1g@0", ("t0", "b"), generation=2), worker("1/1g@0", ("t1", "a"))])
    world = World({1: one, 2: two, 3: bundle(3, one.workers.values())})
    world.send(e.DeployRequested(wanted()))
    world.hold = lambda action: isinstance(action, a.LoadGateway)
    world.send(e.DeployRequested(wanted(20.0)))
    # Both generations answer, and the change has ended a worker of the one that serves.
    actual = world.state.actual
    workers = {name: found for name, found in actual.workers.items() if name != "n-1-1g-2"}
    stays, new = (
        RouteEntry(at, f"app.t0.{model}", 4, 1, generations=(g,))
        for at, model, g in (("n-1-1g-1", "a.g1", 1), ("n-0-1g-0", "b.g2", 2))
    )
    both = RouteEntry("n-1-1g-0", "app.t1.a.g1", 4, 1, generations=(1, 2))
    routes = {**actual.routes, "app.t0.g1": (stays, new), "app.t1.g1": (both,)}
    world.state = replace(world.state, actual=replace(actual, workers=workers, routes=routes))
    world.send(e.GpusLost(frozenset({ZERO})))
    world.hold, done = lambda _: False, len(world.done)
    world.end()
    _, led, *rest = world.done[done:]
    assert led == a.SetRoutes({"app.t0.g1": (stays,)})
    assert any(isinstance(action, a.BringUp) for action in rest)


def test_no_generation_begins_to_serve_that_cannot_answer_without_a_lost_gpu() -> None:
    two = bundle(2, [worker("0/1g@0", ("t0", "b"), generation=2), worker("1/1g@0", ("t1", "a"))])
    world = World({1: bundle(1, MOVED.workers.values()), 2: two, 3: bundle(3, MOVED.workers.values())})
    world.send(e.DeployRequested(wanted()))
    world.hold = lambda action: isinstance(action, a.LoadGateway)
    world.send(e.DeployRequested(wanted(20.0)))
    flips = world.kinds().count("Flip")
    world.send(e.GpusLost(frozenset({ZERO})))
    world.hold = lambda _: False
    world.end()
    error = "GPU n/0 is lost, and the new generation cannot answer without it"
    assert ("error", error) in world.reports
    assert ("ready", "rolled back: the previous generation still serves") in world.reports
    assert world.kinds().count("Flip") == flips
    assert world.state.actual.workers.keys() == MOVED.workers.keys()


def test_no_plan_is_adopted_that_cannot_answer_without_a_gpu_lost_while_it_was_made() -> None:
    """Its worker on the lost GPU exists already, so that no stage of the change would fail."""
    one = bundle(1, [worker("0/1g@0", ("t0", "a")), *MOVED.workers.values()])
    two = bundle(2, [worker("0/1g@0", ("t0", "a")), worker("1/1g@0", ("t1", "b"), generation=2)])
    world = World({1: one, 2: two, 3: bundle(3, MOVED.workers.values())})
    world.send(e.DeployRequested(wanted()))
    world.hold = lambda action: isinstance(action, a.Solve)
    world.send(e.DeployRequested(wanted(20.0)))
    world.send(e.GpusLost(frozenset({ZERO})))
    done = len(world.done)
    world.end()
    error = "nothing was changed: the new generation cannot answer without the lost GPUs n/0"
    assert ("error", error) in world.reports
    assert len(world.done) == done and world.state.phase is Phase.SOLVING
    world.hold = lambda _: False
    world.end()
    assert world.state.actual.workers.keys() == MOVED.workers.keys()


def test_no_earlier_generation_is_restored_that_cannot_answer_without_a_lost_gpu() -> None:
    world = World({1: BOTH, 2: MOVED, 3: "no plan", 4: bundle(4, BOTH.workers.values())})
    world.send(e.DeployRequested(wanted()))
    earlier = world.state.running
    assert earlier is not None
    world.send(e.DeployRequested(wanted(20.0)))
    world.send(e.GpusLost(frozenset({ZERO})))
    done = len(world.done)
    world.send(e.RollbackRequested(earlier))
    assert "nothing was changed" in world.state.error
    assert len(world.done) == done and world.state.phase is Phase.READY


def test_a_gpu_that_is_lost_during_a_rollback_orders_the_rest_of_it_anew() -> None:
    more = worker("1/1g@3", ("t1", "a"))
    one = bundle(1, [*BOTH.workers.values(), worker("1/1g@1", ("t0", "a")), more])
    two = bundle(2, [worker("1/1g@2", ("t0", "b"), generation=2), more])
    world = World({1: one, 2: two, 3: "no plan"})
    world.send(e.DeployRequested(wanted()))
    world.fault = lambda action: "stuck" if isinstance(action, a.Flip) and world.state.pending is not None else ""
    world.hold = lambda action: isinstance(action, a.UnloadGateway) and world.state.rolling_back
    world.send(e.DeployRequested(wanted(20.0)))
    assert world.held and world.state.rolling_back
    world.send(e.GpusLost(frozenset({ZERO})))
    world.fault, world.hold = lambda _: "", lambda _: False
    world.end()
    text = "what serves has changed, so the stages of the rest of the change are computed again"
    assert ("transition", text) in world.reports
    assert world.state.running is not None and world.state.running.bundle is one
    assert world.state.actual.workers.keys() == one.workers.keys()


def test_whoever_asked_for_a_change_that_failed_learns_of_it_after_a_later_one() -> None:
    more = worker("1/1g@2", ("t1", "b"), generation=2)
    two, four = (bundle(number, [*BOTH.workers.values(), more]) for number in (2, 4))
    world = World({1: BOTH, 2: two, 3: MOVED, 4: four})
    world.send(e.DeployRequested(wanted()))
    world.fault = lambda action: "stuck" if isinstance(action, a.Flip) and world.state.pending is not None else ""
    world.send(e.DeployRequested(wanted(20.0)))
    assert (world.state.error, world.state.asked_error) == ("stuck", "stuck")
    world.fault = lambda _: ""
    world.send(e.GpusLost(frozenset({ZERO})))
    assert (world.state.error, world.state.asked_error) == ("", "stuck")
    world.send(e.DeployRequested(wanted(20.0)))
    assert (world.state.error, world.state.asked_error) == ("", "")


def test_a_plan_is_carried_out_although_all_gpus_were_lost_when_it_was_asked_for() -> None:
    world = deployed()
    world.hold = lambda action: isinstance(action, a.Solve)
    world.send(e.GpusLost(frozenset({ZERO, ONE})))
    world.send(e.GpusLost(frozenset()))
    world.hold = lambda _: False
    world.end()
    assert world.state.phase is Phase.READY
    assert world.state.actual.workers.keys() == MOVED.workers.keys()


def test_draining_a_node_is_planned_at_once_and_forgets_an_earlier_error() -> None:
    world = deployed()
    world.state = replace(world.state, error="an earlier deploy failed", error_code=4)
    world.hold = lambda action: isinstance(action, a.Solve)
    world.send(e.CordonRequested("n", cordoned=True))
    assert world.state.error and not world.held
    world.send(e.CordonRequested("n", cordoned=True, drain=True))
    assert (world.state.error, world.state.error_code) == ("", 0)
    (issued,) = world.held
    assert isinstance(issued.action, a.Solve) and issued.action.cordoned == {ZERO, ONE}
    assert issued.action.reason == "node n is drained"


def test_down_names_the_nodes_whose_workers_cannot_be_ended() -> None:
    world = World({1: BOTH, 2: MOVED})
    cluster = wanted().cluster
    other = replace(cluster.gpus[0], id=GpuId("m", 0))
    agents = Agents((("n", "127.0.0.1:1"), ("m", "127.0.0.1:2")), "certificates")
    cluster = replace(cluster, gpus=(*cluster.gpus, other), agents=agents)
    world.send(e.DeployRequested(replace(wanted(), cluster=cluster)))
    world.send(e.GpusLost(frozenset({ZERO, other.id})))
    world.send(e.DownRequested())
    kind, text = world.reports[-1]
    assert kind == "stopped" and "except those on nodes that do not answer (m)" in text
