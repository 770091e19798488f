import math
from dataclasses import replace

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.generation import ChangeRequest
from jigsaw_triton.controller.core.request_checks import refusal
from jigsaw_triton.controller.core.rows import Count, Source
from jigsaw_triton.controller.core.service import troubles
from jigsaw_triton.controller.core.state import Phase
from jigsaw_triton.planner.domain.plan import GraphPlan, Segment, TaskPlan
from tests.controller.worlds import ONE, TWO, World, bundle, deployed, generation, phase, plan, wanted
from tests.fakes.graphs import fan_out


def shared(generation: int, share: float) -> Bundle:
    """A bundle with the workers of `ONE` and this share in every route entry."""
    plain = bundle(generation, ONE.workers.values())
    graph = plain.graphs["app"]
    tasks = tuple(
        replace(task, route=tuple(replace(entry, variant="v0", share=share) for entry in task.route))
        for task in graph.tasks
    )
    return replace(plain, graphs={"app": replace(graph, tasks=tasks)})


def test_a_deploy_reaches_ready() -> None:
    world = deployed(World({1: ONE}))
    assert world.state.running is not None
    assert dict(world.state.actual.workers) == dict(ONE.workers)
    assert world.kinds() == ["StartGateway", "BringUp", "BringUp", "LoadGateway", "Flip"]


def test_a_failed_solve_leaves_the_running_generation() -> None:
    world = deployed(World({1: ONE, 2: "no plan is feasible"}))
    world.send(e.DeployRequested(wanted(1000.0)))
    assert world.state.phase is Phase.READY
    assert (world.state.error, world.state.error_code) == ("no plan is feasible", 3)
    assert world.state.running is not None and world.state.running.bundle == ONE


def test_a_failed_first_solve_stops_the_deployment() -> None:
    world = World({1: "no plan is feasible"})
    world.send(e.DeployRequested(wanted()))
    assert world.state.phase is Phase.STOPPED
    assert world.state.error_code == 3


def test_the_same_plan_changes_nothing() -> None:
    again = bundle(2, ONE.workers.values())
    world = deployed(World({1: ONE, 2: again}))
    before = len(world.done)
    world.send(e.DeployRequested(wanted(11.0)))
    assert len(world.done) == before
    assert world.state.running is not None
    assert world.state.running.wanted.demand_rps["app"] == 11.0
    assert world.state.running.bundle == ONE


def test_different_shares_of_the_same_replicas_are_a_change() -> None:
    world = deployed(World({1: ONE, 2: shared(2, 0.4), 3: shared(3, 0.40001)}))
    world.send(e.DeployRequested(wanted(11.0)))
    assert world.state.running is not None and world.state.running.bundle == shared(2, 0.4)
    assert set(world.kinds()[5:]) == {"LoadGateway", "Flip", "SetRoutes", "Settle"}
    world.send(e.DeployRequested(wanted(12.0)))
    assert world.state.running.wanted.demand_rps["app"] == 12.0
    assert world.state.running.bundle == shared(2, 0.4)


def test_a_rise_is_followed_at_once_and_a_fall_after_a_while() -> None:
    world = deployed(World({1: ONE, 2: TWO, 3: bundle(3, ONE.workers.values())}))
    world.ticks([9.0] * 15)
    assert world.state.next_generation == 2
    world.ticks([20.0] * 2)
    assert world.state.next_generation == 2
    world.ticks([20.0] * 2)
    assert world.state.running is not None
    assert world.state.running.bundle == TWO
    planned = world.state.running.plan.graphs["app"].demand_rps
    # The planned demand is the load with headroom and the noise of two seconds, rounded up.
    settings = world.state.settings
    expected = 20.0 * settings.headroom + math.sqrt(20.0 / 2)
    assert expected <= planned <= expected * settings.demand_step
    world.ticks([2.0] * 30)
    assert world.state.running.bundle == TWO
    world.ticks([2.0] * 60)
    assert world.state.next_generation == 4
    assert world.state.running.plan.graphs["app"].demand_rps == 10.0


def test_more_rows_than_estimated_trigger_a_plan_with_the_measured_rows() -> None:
    """Each request makes twice the estimated rows, so the plan carries half of the demand that it was made for."""
    world = deployed(World({1: ONE, 2: TWO}))
    world.hold = lambda action: isinstance(action, a.Solve)
    assert world.state.running is not None
    graph = replace(fan_out(rows=3.0), name="app")
    segments = (Segment("v0", "1g", 1, 4, 1, 1.0),)
    tasks = {"detect": TaskPlan(10.0, 10.0, segments), "classify": TaskPlan(10.0, 30.0, segments)}
    planned = replace(plan(10.0), graphs={"app": GraphPlan(10.0, 12.0, 1.0, 100.0, tasks)})
    running = replace(world.state.running, wanted=wanted(10.0, graph), plan=planned)
    world.state = replace(world.state, running=running, wanted=running.wanted)
    world.ticks([9.0] * 15)
    assert world.held == []
    world.send(
        e.Tick(world.state.now_s + 1.0, {"app": 9.0}, {Source("app", "detect", "v0", "CROPS"): Count(1000, 6000)})
    )
    (solve,) = (issued.action for issued in world.held)
    assert isinstance(solve, a.Solve)
    assert solve.graphs["app"].tasks["detect"].variant("v0").yields == {"CROPS": 6.0}
    assert solve.wanted.graphs["app"] == graph
    text = "measured values replace estimates in the next plan: app.detect.v0 yields 6 CROPS, not 3"
    assert ("rows", text) in world.reports


def test_load_above_the_clusters_capacity_is_planned_for_once_up_to_that_capacity() -> None:
    world = deployed(World({1: ONE, 2: TWO, 3: bundle(3, ONE.workers.values())}, carries_rps=18.0))
    world.ticks([30.0] * 11)
    assert world.state.running is not None and world.state.running.bundle == TWO
    assert world.state.running.plan.graphs["app"].demand_rps == 18.0
    assert world.reports[-1] == ("ready", "the new generation serves")
    demand_reports = [text for kind, text in world.reports if kind == "demand"]
    assert demand_reports[0] == "app receives 30/s, planned 10/s, capacity 10/s; planning again"
    assert demand_reports[-1] == "the load exceeds the cluster's capacity; the plan covers 18/s of app's 35.2/s"
    world.ticks([40.0] * 60)
    assert world.state.next_generation == 3
    world.ticks([2.0] * 90)
    assert world.state.next_generation == 4
    assert world.state.running.plan.graphs["app"].demand_rps == 10.0
    assert not world.state.overloaded


def test_the_users_demand_is_not_cut() -> None:
    world = deployed(World({1: ONE, 2: TWO}, carries_rps=5.0))
    assert world.state.running is not None
    assert world.state.running.plan.graphs["app"].demand_rps == 10.0
    assert not world.state.overloaded


def test_old_routes_linger_for_queued_requests_and_are_then_removed() -> None:
    world = deployed(World({1: ONE, 2: TWO}))
    world.send(e.DeployRequested(wanted(20.0)))
    assert {"app.t0.g1", "app.t0.g2"} <= world.state.actual.routes.keys()
    world.ticks([15.0] * 29)
    assert "UnloadGateway" not in world.kinds()
    world.ticks([15.0] * 2)
    assert world.done[-1] == a.UnloadGateway(("app.t0.g1", "app.t1.g1"))
    assert world.state.actual.routes.keys() == {"app.t0.g2", "app.t1.g2"}


def test_a_failure_to_remove_lingering_routes_is_retried_and_fails_no_change() -> None:
    world = deployed(World({1: ONE, 2: TWO}))
    world.send(e.DeployRequested(wanted(20.0)))
    world.fault = lambda x: "stuck" if isinstance(x, a.UnloadGateway) else ""
    world.ticks([15.0] * 40)
    assert world.state.error == ""
    assert world.reports.count(("error", "stuck")) == 1
    world.fault = lambda _: ""
    world.ticks([15.0] * 40)
    assert world.kinds()[-1] == "UnloadGateway"


def test_a_load_that_rises_above_a_new_plan_is_planned_for_at_once() -> None:
    world = deployed(World({1: ONE, 2: TWO, 3: bundle(3, TWO.workers.values())}))
    world.ticks([20.0] * 5)
    assert world.state.next_generation == 3
    world.ticks([60.0] * 4)
    assert world.state.next_generation == 4


def test_a_plan_that_fails_is_tried_again_after_the_cooldown() -> None:
    world = deployed(World({1: ONE, 2: "no feasible plan", 3: TWO}))
    world.ticks([50.0] * 13)
    assert world.state.next_generation == 3
    world.ticks([50.0] * 2)
    assert world.state.next_generation == 4


def test_an_observation_about_a_server_is_reported_and_changes_nothing() -> None:
    world = deployed(World({1: ONE}))
    before = world.state
    world.send(e.Noticed("condemned", "worker n-0-1g-0 hangs"))
    assert world.reports[-1] == ("condemned", "worker n-0-1g-0 hangs")
    assert world.state == before


def test_a_stalled_server_is_a_trouble_until_it_answers() -> None:
    world = deployed(World({1: ONE}))
    world.send(e.Stalled("n-0-1g-0", 5.0))
    assert world.reports[-1] == ("error", "n-0-1g-0 has not answered for 5 s")
    assert troubles(world.state) == ("n-0-1g-0 does not answer",)
    world.send(e.Answered("n-0-1g-0"))
    assert world.reports[-1] == ("restart", "n-0-1g-0 answers again")
    assert troubles(world.state) == ()
    reports = len(world.reports)
    world.send(e.Answered("n-0-1g-0"))
    assert len(world.reports) == reports


def test_a_stalled_server_is_forgotten_when_it_ends() -> None:
    world = deployed(World({1: replace(TWO, generation=1), 2: ONE}))
    for server in ("n-0-1g-1", "n-0-1g-2"):
        world.send(e.Stalled(server, 5.0))
    world.send(e.WorkerExited("n-0-1g-1", "killed"))
    assert world.state.stalled == {"n-0-1g-2"}
    world.send(e.DeployRequested(wanted()))
    assert "n-0-1g-2" not in world.state.actual.workers
    assert world.state.stalled == frozenset()


def test_a_deploy_waits_for_a_change_by_load_and_a_second_deploy_is_refused() -> None:
    world = deployed(World({1: ONE, 2: TWO, 3: bundle(3, TWO.workers.values())}))
    world.hold = lambda x: isinstance(x, a.BringUp)
    world.ticks([50.0] * 15)
    assert phase(world) == "changing"
    assert refusal(world.state) is None
    world.send(e.DeployRequested(wanted(30.0)))
    assert refusal(world.state) == "another deploy is under way"
    world.end()
    assert world.state.phase is Phase.READY
    assert world.state.running is not None
    assert world.state.running.wanted.demand_rps["app"] == 30.0


def test_a_rollback_returns_to_the_input_and_the_plan_of_an_earlier_generation() -> None:
    world = World({1: ONE, 2: TWO, 3: replace(ONE, generation=3)})
    world.send(e.DeployRequested(wanted()))
    earlier = world.state.running
    assert earlier is not None
    world.send(e.DeployRequested(wanted(20.0)))
    solves: list[a.Solve] = []

    def hold(action: a.Action) -> bool:
        if isinstance(action, a.Solve):
            solves.append(action)
        return False

    world.hold = hold
    world.send(e.RollbackRequested(earlier))
    assert [(s.restored, s.wanted, s.demand_rps) for s in solves] == [(earlier, earlier.wanted, {"app": 10.0})]
    assert solves[0].reason == "rollback to generation 1"
    assert world.state.running is not None
    assert (world.state.running.bundle.generation, world.state.wanted) == (3, earlier.wanted)


def test_a_rollback_of_a_plan_that_followed_the_load_keeps_the_load_that_it_was_made_for() -> None:
    earlier = replace(generation(ONE), plan=plan(70.0))
    assert ChangeRequest(earlier.wanted, restored=earlier).demand_rps == {"app": 70.0}


def test_while_paused_the_load_causes_no_change_and_the_user_still_may() -> None:
    world = World({1: ONE, 2: TWO, 3: replace(ONE, generation=3)})
    world.send(e.DeployRequested(wanted()))
    world.send(e.PauseRequested(True))
    world.ticks([100.0] * 60)
    assert world.state.next_generation == 2
    world.send(e.DeployRequested(wanted(20.0)))
    assert world.state.next_generation == 3
    world.send(e.PauseRequested(False))
    world.ticks([100.0] * 60)
    assert world.state.next_generation == 4
    assert [kind for kind, _ in world.reports if kind in ("paused", "resumed")] == ["paused", "resumed"]
