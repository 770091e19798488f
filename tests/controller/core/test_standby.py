from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Canary
from jigsaw_triton.controller.core.lost_gpus import without_lost
from jigsaw_triton.controller.core.recovery import recovered
from jigsaw_triton.controller.core.request_counts import RequestCounts
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.standby import Reading, RecentArrivals, routes_to_set
from jigsaw_triton.controller.core.state import Phase
from jigsaw_triton.controller.core.transition import stages_to
from tests.controller.worlds import World, bundle, checkpointed, generation, profiled, standing_by, wanted, worker

PLAIN = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))])
ONE = standing_by(PLAIN)
"""Generation 1, which carries 10 requests a second, and 30 with its standby variants b."""

TWO = standing_by(
    bundle(
        2,
        [
            worker("0/1g@0", ("t0", "a")),
            worker("0/1g@1", ("t1", "a")),
            worker("0/1g@2", ("t0", "a"), generation=2),
            worker("0/1g@3", ("t1", "a"), generation=2),
        ],
    ),
    1,
)
"""Generation 2: the same, and one more slice for each task."""

OTHER = bundle(2, [worker("0/1g@0", ("t0", "b"), generation=2), worker("0/1g@1", ("t1", "a"))])
"""Generation 2 with the standby variant of the first task in place of its usual one."""

CALM, BURST = [8.0] * 40, [30.0] * 8


def deployed(world: World) -> World:
    world.send(e.Tick(100.0, {}))
    world.send(e.DeployRequested(wanted()))
    assert world.state.phase is Phase.READY
    world.ticks([8.0])
    return world


def existing(made: Bundle) -> Actual:
    actual = Actual()
    for stage in stages_to(actual, None, generation(made)):
        for action in stage.actions:
            actual = actual.after(action)
    return actual


def routed(world: World, generation: int = 1) -> dict[str, list[str]]:
    """Returns the models to which the routes of a generation lead, by task."""
    routes = world.state.actual.routes
    return {task: [entry.model for entry in routes[f"app.{task}.g{generation}"]] for task in ("t0", "t1")}


USUAL = {"t0": ["app.t0.a.g1"], "t1": ["app.t1.a.g1"]}
STANDBY = {"t0": ["app.t0.b.g1"], "t1": ["app.t1.b.g1"]}


def test_standby_models_are_loaded_after_the_front_serves_and_have_no_route() -> None:
    world = deployed(World({1: ONE}))
    flip = next(i for i, action in enumerate(world.done) if isinstance(action, a.Flip))
    loads = [(i, action.models) for i, action in enumerate(world.done) if isinstance(action, a.LoadModels)]
    assert [models for _, models in loads] == [ONE.workers[name].standby for name in sorted(ONE.workers)]
    assert all(i > flip for i, _ in loads)
    assert routed(world) == USUAL


def test_a_standby_model_that_does_not_load_does_not_fail_the_deployment() -> None:
    world = deployed(World({1: ONE}, fault=lambda x: "no memory" if isinstance(x, a.LoadModels) else ""))
    assert world.state.error == ""
    assert ("error", "no memory") in world.reports
    world.arrive(BURST)
    assert routed(world) == USUAL


def test_a_burst_is_taken_over_within_half_a_second_and_given_back_after_it() -> None:
    world = deployed(World({1: ONE}))
    world.arrive(CALM)
    assert routed(world) == USUAL
    world.arrive([40.0, 40.0])
    assert routed(world) == STANDBY
    assert world.state.standby == {"app"}
    said = "app receives 40/s, and its usual variants carry 10/s; standby variants take over"
    assert world.reports[-1] == ("standby", said)
    world.arrive([40.0] * 40)
    assert routed(world) == STANDBY
    # The burst leaves the window of 5 s after 5 s.
    world.arrive([8.0] * 10)
    assert routed(world) == STANDBY
    world.arrive([8.0] * 10)
    assert routed(world) == USUAL
    assert world.reports[-1] == ("standby", "app receives 8/s, and its usual variants carry 10/s; they serve again")


def test_routes_keep_their_generation_and_get_their_shares_back() -> None:
    task = PLAIN.graphs["app"].tasks[0]
    shared = tuple(replace(entry, share=1.0) for entry in task.route)
    graph = ONE.graphs["app"]
    made = replace(ONE, graphs={"app": replace(graph, tasks=(replace(graph.tasks[0], route=shared), *graph.tasks[1:]))})
    world = deployed(World({1: made}))
    world.arrive(BURST)
    (entry,) = world.state.actual.routes["app.t0.g1"]
    assert (entry.variant, entry.share, entry.generations) == ("b", 0.0, (1,))
    world.arrive(CALM)
    assert world.state.actual.routes["app.t0.g1"] == shared


def test_a_graph_without_standby_variants_does_not_switch() -> None:
    world = deployed(World({1: PLAIN}))
    world.arrive(BURST)
    assert routed(world) == USUAL
    assert not world.state.standby


@pytest.mark.parametrize("seed", range(3))
def test_noise_below_the_capacity_is_no_burst(seed: int) -> None:
    counts = np.random.default_rng(seed).poisson(0.25 * 95, size=4 * 600)
    recent, bursts = RecentArrivals(100.0), 0
    for number, count in enumerate(counts.tolist()):
        recent = recent.with_reading(Reading(0.25 * number, 0.25, count), Settings())
        bursts += recent.bursts()
    assert bursts == 0


@pytest.mark.parametrize(("rps", "most_s"), [(300.0, 0.25), (150.0, 1.25), (130.0, 3.0)])
def test_a_larger_excess_is_seen_sooner(rps: float, most_s: float) -> None:
    recent = RecentArrivals(100.0)
    for number in range(1, 13):
        recent = recent.with_reading(Reading(0.25 * number, 0.25, 0.25 * rps), Settings())
        if recent.bursts():
            break
    assert recent.bursts()
    assert 0.25 * number <= most_s


def test_a_switch_that_fails_is_repeated_after_some_seconds() -> None:
    world = deployed(World({1: ONE}))
    world.fault = lambda x: "the disk is full" if isinstance(x, a.SetRoutes) else ""
    world.arrive([40.0, 40.0])
    world.fault = lambda _: ""
    world.arrive([40.0] * 4)
    assert routed(world) == USUAL
    assert [text for kind, text in world.reports if kind == "error"] == ["the disk is full"]
    world.ticks([8.0] * 5)
    world.arrive([40.0])
    assert routed(world) == STANDBY


def test_a_plan_found_during_a_switch_is_adopted_after_it() -> None:
    world = deployed(World({1: ONE, 2: TWO}))
    world.hold = lambda x: isinstance(x, a.Solve | a.SetRoutes)
    world.send(e.DeployRequested(wanted(20.0)))
    world.arrive([40.0, 40.0])
    solve, switch = world.held
    world.held = []
    world.send(world.outcome(solve))
    assert (world.state.phase, world.state.pending) == (Phase.SOLVING, None)
    world.hold = lambda _: False
    world.send(world.outcome(switch))
    assert world.state.phase is Phase.READY
    assert world.state.running is not None and world.state.running.bundle is TWO


def routes_set(world: World, since: int, name: str) -> Iterable[list[str]]:
    """Yields the models to which a route leads, each time that it is set."""
    for action in world.done[since:]:
        if isinstance(action, a.SetRoutes | a.LoadGateway) and name in action.routes:
            yield [entry.model for entry in action.routes[name]]


def test_a_change_goes_on_with_the_standby_variants_and_they_give_back_after_it() -> None:
    world = deployed(World({1: ONE, 2: TWO}))
    world.arrive([40.0, 40.0])
    since = len(world.done)
    world.send(e.DeployRequested(wanted(40.0)))
    assert world.state.phase is Phase.READY
    for number in (1, 2):
        assert all("app.t0.b.g1" in models for models in routes_set(world, since, f"app.t0.g{number}"))
    # The new slices load their standby variants last, and the next count of arrivals brings them into service.
    assert routed(world, 2)["t0"] == ["app.t0.b.g1", "app.t0.a.g2"]
    world.ticks([8.0])
    world.arrive([8.0])
    assert routed(world, 2)["t0"] == ["app.t0.b.g1", "app.t0.b.g1"]
    world.arrive(CALM)
    assert routed(world, 2) == {"t0": ["app.t0.a.g1", "app.t0.a.g2"], "t1": ["app.t1.a.g1", "app.t1.a.g2"]}


def test_standby_variants_take_over_while_workers_start_and_the_change_goes_on_with_them() -> None:
    world = deployed(World({1: ONE, 2: TWO}))
    world.hold = lambda x: isinstance(x, a.BringUp)
    world.send(e.DeployRequested(wanted(40.0)))
    world.arrive(BURST)
    assert world.state.stages and routed(world) == STANDBY
    since = len(world.done)
    world.hold = lambda _: False
    world.end()
    assert world.state.phase is Phase.READY
    said = "what serves has changed, so the stages of the rest of the change are computed again"
    assert world.reports.count(("transition", said)) == 1
    for number in (1, 2):
        assert all("app.t0.b.g1" in models for models in routes_set(world, since, f"app.t0.g{number}"))
    assert routed(world, 2)["t0"] == ["app.t0.b.g1", "app.t0.a.g2"]


def test_a_stage_that_sets_routes_waits_for_a_switch() -> None:
    world = deployed(World({1: ONE, 2: TWO}))
    world.hold = lambda x: isinstance(x, a.BringUp | a.SetRoutes)
    world.send(e.DeployRequested(wanted(40.0)))
    world.arrive(BURST)
    *started, switch = world.held
    assert isinstance(switch.action, a.SetRoutes)
    world.held = []
    world.hold = lambda _: False
    for issued in started:
        world.send(world.outcome(issued))
    assert world.state.stages and routed(world) == USUAL
    world.send(world.outcome(switch))
    assert world.state.phase is Phase.READY
    assert routed(world, 2)["t0"] == ["app.t0.b.g1", "app.t0.a.g2"]


def test_variants_do_not_switch_while_a_change_sets_routes() -> None:
    world = deployed(World({1: ONE, 2: TWO}))
    world.hold = lambda x: isinstance(x, a.SetRoutes | a.LoadGateway)
    world.send(e.DeployRequested(wanted(40.0)))
    held = list(world.held)
    world.arrive(BURST)
    assert world.state.phase is Phase.CHANGING
    assert (world.held, world.state.standby) == (held, frozenset())


@pytest.mark.parametrize("canary", [None, Canary(0.05, 60.0)])
def test_variants_do_not_switch_during_a_change_that_touches_the_running_workers(canary: Canary | None) -> None:
    world = deployed(World({1: ONE, 2: OTHER}))
    world.hold = lambda x: isinstance(x, a.LoadModels)
    world.send(e.DeployRequested(wanted(20.0), canary))
    before, held = routed(world), list(world.held)
    assert held
    world.arrive(BURST)
    assert (routed(world), world.held, world.state.standby) == (before, held, frozenset())
    world.hold = lambda _: False
    world.end()
    if canary is not None:
        assert world.state.watch is not None and world.state.watch.verdict is None
        world.arrive(BURST)
        assert world.state.standby == frozenset()
        world.send(e.CanaryEndRequested())
    assert world.state.phase is Phase.READY


def test_variants_do_not_switch_while_what_served_is_restored() -> None:
    world = deployed(World({1: ONE, 2: TWO}))
    world.hold = lambda x: isinstance(x, a.BringUp)
    world.send(e.DeployRequested(wanted(40.0)))
    # A rollback starts workers, too, and leads to no other generation.
    world.state = replace(world.state, pending=None, rolling_back=True)
    world.arrive(BURST)
    assert not world.state.standby and not world.state.reorder


def test_standby_variants_take_over_during_a_canary_which_is_not_repeated() -> None:
    world = deployed(World({1: ONE, 2: TWO}))
    world.send(e.DeployRequested(wanted(20.0), Canary(0.05, 5.0)))
    watch = world.state.watch
    assert watch is not None and watch.verdict is None
    world.arrive(BURST)
    assert routed(world)["t0"][0] == "app.t0.b.g1"
    assert any(entry.weights for entry in world.state.actual.routes["app.t0.g1"])
    requests = {("app", watch.running): RequestCounts(5000.0), ("app", watch.new): RequestCounts(500.0)}
    for _ in range(6):
        world.send(e.Tick(world.state.now_s + 1.0, {"app": 8.0}, requests=requests))
    assert world.state.phase is Phase.READY
    assert world.state.running is not None and world.state.running.bundle is TWO
    assert routed(world, 2)["t0"] == ["app.t0.b.g1", "app.t0.a.g2"]


@pytest.mark.parametrize(
    ("canary", "t0"),
    [
        (None, {("app.t0.b.g1", (1,), ()), ("app.t0.a.g2", (2,), ())}),
        (
            Canary(0.05, 60.0),
            {("app.t0.b.g1", (1,), (0.95,)), ("app.t0.a.g2", (2,), (0.05,)), ("app.t0.a.g1", (2,), (0.05,))},
        ),
    ],
)
def test_a_generation_without_the_standby_variants_keeps_the_usual_ones_that_it_needs(
    canary: Canary | None, t0: set[object]
) -> None:
    """They are those of t1, for which the target has no other worker, and in a canary those of t0."""
    added = worker("0/1g@2", ("t0", "a"), generation=2)
    running, target = profiled(ONE), profiled(bundle(2, [*PLAIN.workers.values(), added]))
    actual = existing(ONE)
    for stage in stages_to(actual, running, target, canary):
        if stage.commits:
            break
        for action in stage.actions:
            actual = actual.after(action)
    before = dict(actual.routes)
    actual = actual.after(a.SetRoutes(routes_to_set(actual, running, ["app"], target)))
    found = {task: {(e.model, e.generations, e.weights) for e in actual.routes[f"app.{task}.g1"]} for task in USUAL}
    assert found["t0"] == t0
    assert {(model, numbers) for model, numbers, _ in found["t1"]} == {("app.t1.b.g1", (1,)), ("app.t1.a.g1", (2,))}
    assert routes_to_set(actual, running, ["app"], target) == {}
    actual = actual.after(a.SetRoutes(routes_to_set(actual, running, [], target)))
    assert actual.routes["app.t1.g1"] == before["app.t1.g1"]


def test_a_switch_during_a_canary_leads_no_request_to_variants_that_its_generation_lacks() -> None:
    plain = bundle(2, [*PLAIN.workers.values(), worker("0/1g@2", ("t0", "a"), generation=2)])
    world = deployed(World({1: ONE, 2: plain}))
    world.send(e.DeployRequested(wanted(20.0), Canary(0.05, 60.0)))
    world.arrive(BURST)
    found = {(entry.model, entry.generations) for entry in world.state.actual.routes["app.t1.g1"]}
    assert found == {("app.t1.b.g1", (1,)), ("app.t1.a.g1", (2,))}


def test_a_plan_without_standby_variants_ends_their_service() -> None:
    plain = bundle(2, PLAIN.workers.values())
    world = deployed(World({1: ONE, 2: plain}))
    world.arrive(BURST)
    world.send(e.DeployRequested(wanted(40.0)))
    world.ticks([8.0])
    assert routed(world, 2) == USUAL
    assert not world.state.standby
    assert {m.name for w in world.state.actual.workers.values() for m in w.models} == {"app.t0.a.g1", "app.t1.a.g1"}


def test_the_next_controller_knows_that_standby_variants_serve() -> None:
    world = deployed(World({1: ONE}))
    world.arrive(BURST)
    found = recovered(checkpointed(world.state))
    assert found is not None
    world.state = found
    world.ticks([40.0])
    world.arrive([40.0])
    assert routed(world) == STANDBY
    world.arrive(CALM)
    assert routed(world) == USUAL


def test_a_few_requests_at_once_are_no_burst() -> None:
    recent = RecentArrivals(10.0).with_reading(Reading(0.1, 0.1, 9.0), Settings())
    assert not recent.bursts()
    assert recent.with_reading(Reading(0.2, 0.1, 9.0), Settings()).bursts()


def test_a_rollback_to_a_copy_of_the_running_generation_without_lost_gpus_keeps_the_standby_variants() -> None:
    world = deployed(World({1: ONE}))
    world.arrive(CALM)
    world.arrive([40.0, 40.0])
    state = world.state
    assert state.running is not None and routed(world) == STANDBY
    copy = without_lost(state.running, frozenset())
    assert copy is not state.running
    found = stages_to(state.actual, state.running, copy, standby=state.standby)
    assert [stage for stage in found if stage.actions] == []
