"""A change that begins with a canary: its stages, its verdict, and the reasons why one is impossible."""

import math
from dataclasses import replace

import pytest

from jigsaw_triton.compiler.bundle import Bundle, RouteEntry
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.canary import LEAST
from jigsaw_triton.controller.core.canary_room import canary_obstacle
from jigsaw_triton.controller.core.generation import Canary, ChangeRequest, Generation
from jigsaw_triton.controller.core.recovery import recovered, unfinished
from jigsaw_triton.controller.core.request_counts import RequestCounts
from jigsaw_triton.controller.core.transition import stages_to
from jigsaw_triton.controller.persistence.history import outcomes, verdicts
from jigsaw_triton.graph.model import Slo
from jigsaw_triton.graph.tensors import TensorType
from tests.controller.core.test_step import phase
from tests.controller.worlds import (
    World,
    bundle,
    chained,
    checkpointed,
    generation,
    profiled,
    steps,
    wanted,
    with_contents,
    worker,
)

CANARY = Canary(0.05, 60.0)
ONE = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))])
BESIDE = bundle(2, [worker("0/1g@0", ("t0", "b"), generation=2), worker("0/1g@1", ("t1", "a"))])
ADDED = bundle(2, [*ONE.workers.values(), worker("0/1g@2", ("t1", "b"), generation=2)])
MOVED = bundle(2, [worker("1/2g@0", ("t0", "b"), generation=2), worker("1/1g@4", ("t1", "b"), generation=2)])


def deployed(target: Bundle = BESIDE, **more: object) -> World:
    """A world in which an update to a generation has reached its canary."""
    world = World({1: ONE, 2: target}, **more)  # type: ignore[arg-type]
    world.send(e.DeployRequested(wanted()))
    world.send(e.DeployRequested(wanted(20.0), CANARY))
    return world


def seconds(world: World, count: int, *, failed: float = 0.0, slow: bool = False) -> None:
    """Lets some seconds pass, with 100 requests each, of which the canary answers its share."""
    for _ in range(count):
        fast, late = {0.02: 95.0, 0.1: 95.0, math.inf: 95.0}, {0.02: 0.0, 0.1: 0.0, math.inf: 5.0}
        new = late if slow else dict.fromkeys(late, 5.0 - failed)
        requests = {("app", 1): RequestCounts(95.0, 0.0, fast), ("app", 2): RequestCounts(5.0, failed, new)}
        world.send(e.Tick(world.state.now_s + 1.0, {"app": 10.0}, requests=requests))


def entries(world: World, task: str = "app.t0.g1") -> dict[str, RouteEntry]:
    return {entry.model: entry for entry in world.state.actual.routes[task]}


@pytest.mark.parametrize("target", [BESIDE, ADDED, MOVED])
def test_both_generations_serve_by_their_shares_until_the_verdict(target: Bundle) -> None:
    world = deployed(target)
    assert phase(world) == "changing" and world.state.stage is not None
    assert world.state.stage.title == "answer 5% of the requests with the new generation"
    assert {*ONE.workers, *target.workers} == set(world.state.actual.workers)
    for task in ONE.graphs["app"].tasks:
        route = world.state.actual.routes[task.name]
        shares = dict(pair for entry in route for pair in zip(entry.generations, entry.weights, strict=True))
        assert shares == {1: 0.95, 2: 0.05}
    seconds(world, 59)
    assert phase(world) == "changing" and world.state.actual.fronts["app"] == ONE.graphs["app"].front
    seconds(world, 3)
    assert phase(world) == "ready" and world.state.error == ""
    assert world.state.running is not None and world.state.running.bundle == target
    assert dict(world.state.actual.workers) == dict(target.workers)
    assert not any(entry.weights for route in world.state.actual.routes.values() for entry in route)
    assert any(kind == "canary" and text.startswith("promoted: app: errors 0.0%") for kind, text in world.reports)


def test_no_request_goes_to_the_new_generation_before_the_canary() -> None:
    world = World({1: ONE, 2: ADDED})
    world.send(e.DeployRequested(wanted()))
    done = len(world.done)
    world.send(e.DeployRequested(wanted(20.0), CANARY))
    set_routes = [action for action in world.done[done:] if isinstance(action, a.SetRoutes)]
    assert a.Compare("app", ADDED.graphs["app"].front) in world.done
    assert len(set_routes) == 1 and any(entry.weights for entry in set_routes[0].routes["app.t1.g1"])


def test_a_model_that_both_generations_have_serves_the_requests_of_both() -> None:
    found = entries(deployed(ADDED), "app.t1.g1")
    assert (found["app.t1.a.g1"].generations, found["app.t1.a.g1"].weights) == ((1, 2), (0.95, 0.05))
    assert (found["app.t1.b.g2"].generations, found["app.t1.b.g2"].weights) == ((2,), (0.05,))


def test_only_its_own_workers_answer_for_a_generation_and_they_keep_their_shares() -> None:
    def shared(made: Bundle, share: float) -> Bundle:
        graph = made.graphs["app"]
        tasks = (replace(t, route=tuple(replace(entry, share=share) for entry in t.route)) for t in graph.tasks)
        return with_contents(replace(made, graphs={"app": replace(graph, tasks=tuple(tasks))}))

    moved = bundle(2, [worker("1/2g@0", ("t0", "a"), generation=2), worker("1/2g@2", ("t1", "a"), generation=2)])
    before, target = profiled(shared(ONE, 0.5)), profiled(shared(moved, 0.7))
    actual = served(before)
    (watched,) = (stage for stage in stages_to(actual, before, target, CANARY) if stage.watches)
    (action,) = (action for action in watched.actions if isinstance(action, a.SetRoutes))
    for task, first, second in (("t0", "n-0-1g-0", "n-1-2g-0"), ("t1", "n-0-1g-1", "n-1-2g-2")):
        route = action.routes[f"app.{task}.g1"]
        assert [(e.worker, e.generations, e.share) for e in route] == [(first, (1,), 0.5), (second, (2,), 0.7)]


@pytest.mark.parametrize(("fault", "reason"), [({"failed": 5.0}, "errors 100.0%"), ({"slow": True}, "took longer")])
@pytest.mark.parametrize("target", [BESIDE, ADDED, MOVED])
def test_a_generation_that_does_worse_is_rolled_back_within_seconds(
    target: Bundle, fault: dict[str, float], reason: str
) -> None:
    world = deployed(target)
    seconds(world, 4, **fault)  # type: ignore[arg-type]
    assert phase(world) == "ready"
    assert world.state.running is not None and world.state.running.bundle == ONE
    assert dict(world.state.actual.workers) == dict(ONE.workers)
    assert {n: r for n, r in world.state.actual.routes.items()} == {t.name: t.route for t in ONE.graphs["app"].tasks}
    assert world.state.error.startswith("canary: rolled back: app: ") and reason in world.state.error
    assert world.state.error_code == 4
    assert unfinished(checkpointed(world.state)) is None


def test_a_canary_without_requests_is_rolled_back_at_its_deadline() -> None:
    world = deployed()
    world.ticks([0.0] * 62)
    assert phase(world) == "ready"
    assert world.state.error.startswith(
        f"canary: rolled back: app: only 0 requests in 60 s, but a verdict needs {LEAST}"
    )


def test_the_user_can_end_a_canary() -> None:
    world = deployed()
    seconds(world, 2)
    world.send(e.CanaryEndRequested())
    assert phase(world) == "ready"
    assert world.state.error == "canary: rolled back: requested by the user"
    assert world.state.running is not None and world.state.running.bundle == ONE


def test_the_user_can_end_a_canary_that_still_loads() -> None:
    world = World({1: ONE, 2: BESIDE})
    world.send(e.DeployRequested(wanted()))
    world.hold = lambda action: isinstance(action, a.LoadModels)
    world.send(e.DeployRequested(wanted(20.0), CANARY))
    world.send(e.CanaryEndRequested())
    assert phase(world) == "changing"
    world.hold = lambda _: False
    world.end()
    assert phase(world) == "ready"
    assert dict(world.state.actual.workers) == dict(ONE.workers)


def test_a_canary_that_cannot_load_is_rolled_back_and_never_decided_again() -> None:
    world = deployed(fault=lambda x: "no such weights" if isinstance(x, a.LoadModels) else "")
    assert phase(world) == "ready" and world.state.error == "no such weights"
    assert world.state.watch is not None and str(world.state.watch.verdict) == "rolled back: no such weights"
    seconds(world, 70)
    assert world.state.error == "no such weights"


def test_down_ends_a_canary() -> None:
    world = deployed()
    world.send(e.DownRequested())
    assert phase(world) == "stopped"
    assert world.state.error == ""


def test_the_next_controller_undoes_a_canary_and_asks_for_it_again() -> None:
    state = deployed().state
    assert unfinished(checkpointed(state)) == ChangeRequest(wanted(20.0), canary=CANARY)
    after = recovered(checkpointed(state))
    assert after is not None
    world = World({}, state=after)
    world.ticks([10.0] * 40)
    assert phase(world) == "ready"
    assert dict(world.state.actual.workers) == dict(ONE.workers)
    assert not any(entry.weights for route in world.state.actual.routes.values() for entry in route)


def test_the_history_has_the_verdict() -> None:
    world = deployed()
    seconds(world, 1)
    before = world.state
    assert verdicts(before, before) == []
    seconds(world, 2, failed=5.0)
    assert verdicts(before, world.state) == [(2, f"canary {world.state.watch and world.state.watch.verdict}")]
    assert outcomes(before, world.state) == [(2, "failed")]
    assert verdicts(world.state, world.state) == []


def test_a_canary_that_has_no_room_changes_nothing() -> None:
    wide = bundle(2, [worker("0/2g@0", ("t0", "b"), generation=2), worker("1/1g@0", ("t1", "a"), generation=2)])
    world = World({1: ONE, 2: wide, 3: wide})
    world.send(e.DeployRequested(wanted()))
    before, done = world.state, len(world.done)
    world.send(e.DeployRequested(wanted(20.0), CANARY))
    assert len(world.done) == done and phase(world) == "ready"
    assert world.state.running is before.running and world.state.error_code == 4
    assert world.state.error == (
        "a canary is impossible, and nothing was changed: both generations do not fit at once: n-0-1g-0 must make "
        "room for another slice; n-0-1g-1 must make room for another slice; free the room, or deploy without a canary"
    )
    assert world.state.watch is None
    world.send(e.DeployRequested(wanted(20.0)))
    assert world.state.running is not None and world.state.running.bundle == wide


def served(running: Generation) -> Actual:
    """Returns what exists after the first deployment of a generation."""
    actual = Actual()
    for stage in stages_to(actual, None, running):
        for action in stage.actions:
            actual = actual.after(action)
    return actual


def obstacle(running: Generation | None, target: Generation) -> str:
    actual = served(running) if running is not None else Actual()
    return canary_obstacle(stages_to(actual, running, target, CANARY), running, target)


def with_graph(made: Generation, **changes: object) -> Generation:
    graph = replace(made.wanted.graphs["app"], **changes)  # type: ignore[arg-type]
    return replace(made, wanted=replace(made.wanted, graphs={"app": graph}))


def test_a_canary_needs_memory_for_the_models_of_both_generations() -> None:
    found = obstacle(profiled(ONE, memory_mib=9000.0), profiled(BESIDE, memory_mib=9000.0))
    assert "n-0-1g-0 has no memory for its old models beside the new ones" in found


def test_a_first_deployment_has_no_canary() -> None:
    assert "no generation serves yet" in obstacle(None, generation(ONE))


@pytest.mark.parametrize("target", ["ensemble", "bls"])
def test_graphs_whose_tasks_do_not_know_of_each_other_have_no_canary(target: str) -> None:
    one, two = (replace_target(made, target) for made in (ONE, BESIDE))
    assert f"graph app has target `{target}`" in obstacle(generation(one), generation(two))
    assert "a canary needs target `graph`" in obstacle(generation(ONE), generation(two))


def replace_target(made: Bundle, target: str) -> Bundle:
    return replace(made, graphs={"app": replace(made.graphs["app"], target=target)})


def test_a_graph_that_the_running_front_does_not_know_has_no_canary() -> None:
    one, two = generation(ONE), generation(BESIDE)
    graph = one.wanted.graphs["app"]
    changed = {name: replace(task, outputs={"Y": TensorType("FP32", (9,))}) for name, task in graph.tasks.items()}
    assert "task t0 of graph app is new, gone or connected differently" in obstacle(one, with_graph(two, tasks=changed))
    assert "is new, gone" in obstacle(one, with_graph(two, tasks={**graph.tasks, "t2": graph.tasks["t1"]}))
    assert "the inputs, outputs or Python steps of graph app change" in obstacle(one, with_graph(two, outputs={}))
    assert "chains in one call" in obstacle(
        generation(chained(bundle(1, [worker("0/1g@0", ("t0", "a"), ("t1", "a"))]))), two
    )
    assert obstacle(one, with_graph(two, slo=Slo(500.0), priority=3)) == ""


def test_a_graph_that_is_new_does_not_need_a_canary() -> None:
    one, two = generation(ONE), generation(BESIDE)
    other = replace(two.bundle, graphs={**two.bundle.graphs, "more": two.bundle.graphs["app"]})
    assert obstacle(one, replace(two, bundle=other)) == ""
    renamed = replace(two.bundle, graphs={"more": two.bundle.graphs["app"]})
    assert "no graph of the running generation stays" in obstacle(one, replace(two, bundle=renamed))


def test_steps_workers_stay_through_a_canary() -> None:
    one = bundle(1, [*ONE.workers.values(), steps()], ["t0", "t1", "s"])
    two = bundle(2, [*BESIDE.workers.values(), steps()], ["t0", "t1", "s"])
    world = World({1: one, 2: two})
    world.send(e.DeployRequested(wanted()))
    world.send(e.DeployRequested(wanted(20.0), CANARY))
    assert world.state.watch is not None and world.state.watch.began_s is not None
    seconds(world, 62)
    assert world.state.running is not None and world.state.running.bundle == two
