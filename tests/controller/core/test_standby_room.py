"""Models that make room for others while variants stand by."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Canary
from jigsaw_triton.controller.core.standby import in_service, routes_to_set
from jigsaw_triton.controller.core.state import Phase
from jigsaw_triton.controller.core.transition import stages_to
from tests.controller.core.test_standby import BURST, ONE, OTHER, STANDBY, USUAL, deployed, existing, routed
from tests.controller.worlds import World, generation, profiled, wanted


def actions_to(actual: Actual, before: Bundle, target: Bundle, standby: Iterable[str] = ()) -> list[a.Action]:
    stages = stages_to(actual, profiled(before), profiled(target), standby=frozenset(standby))
    return [action for stage in stages for action in stage.actions]


def test_a_model_that_stands_by_makes_room_for_the_new_model_of_its_slice() -> None:
    actions = actions_to(existing(ONE), ONE, OTHER)
    unload, load = (
        a.UnloadModels("n-0-1g-0", ("app.t0.b.g1",)),
        a.LoadModels("n-0-1g-0", OTHER.workers["n-0-1g-0"].models),
    )
    assert actions.index(unload) < actions.index(load)
    assert a.UnloadModels("n-0-1g-1", ("app.t1.b.g1",)) in actions[actions.index(load) :]


def test_the_usual_model_makes_room_while_its_standby_variant_serves() -> None:
    actual = existing(ONE)
    actual = actual.after(a.SetRoutes(routes_to_set(actual, generation(ONE), ["app"])))
    actions = actions_to(actual, ONE, OTHER, ["app"])
    unload, load = (
        a.UnloadModels("n-0-1g-0", ("app.t0.a.g1",)),
        a.LoadModels("n-0-1g-0", OTHER.workers["n-0-1g-0"].models),
    )
    assert actions.index(unload) < actions.index(load)
    for action in actions[: actions.index(load)]:
        actual = actual.after(action)
    # The change fails here. The rollback loads the usual model again.
    running = generation(ONE)
    for stage in stages_to(actual, running, running, standby=["app"]):
        for action in stage.actions:
            actual = actual.after(action)
    assert {model.name for model in actual.workers["n-0-1g-0"].models} == {"app.t0.a.g1", "app.t0.b.g1"}
    assert routes_to_set(actual, running, []) != {}


@pytest.mark.parametrize("burst", [False, True])
def test_models_that_stand_by_make_room_for_a_canary_and_are_loaded_again_after_it(burst: bool) -> None:
    world = deployed(World({1: ONE, 2: OTHER}))
    if burst:
        world.arrive(BURST)
    world.send(e.DeployRequested(wanted(20.0), Canary(0.05, 60.0)))
    assert world.state.watch is not None and world.state.watch.verdict is None
    assert sum(len(w.models) for w in world.state.actual.workers.values()) == 4
    world.send(e.CanaryEndRequested())
    loaded = {m.name for w in world.state.actual.workers.values() for m in w.models}
    assert loaded == {"app.t0.a.g1", "app.t0.b.g1", "app.t1.a.g1", "app.t1.b.g1"}
    world.ticks([8.0])
    world.arrive([8.0])
    assert routed(world) == (STANDBY if burst else USUAL)


def test_a_model_makes_room_after_an_old_route_has_left_it() -> None:
    actual = existing(ONE)
    lingering = replace(ONE.graphs["app"].tasks[0].standby[0], generations=(1,))
    actual = actual.after(a.SetRoutes({"app.t0.g0": (lingering,)}))
    actions = actions_to(actual, ONE, OTHER)
    load = actions.index(a.LoadModels("n-0-1g-0", OTHER.workers["n-0-1g-0"].models))
    left, *_, unload = (x for x in actions[:load] if isinstance(x, a.SetRoutes | a.UnloadModels))
    assert isinstance(left, a.SetRoutes) and [entry.model for entry in left.routes["app.t0.g0"]] == ["app.t0.a.g1"]
    assert unload == a.UnloadModels("n-0-1g-0", ("app.t0.b.g1",))


def test_only_slices_with_both_models_loaded_are_in_service() -> None:
    actual = existing(ONE)
    actual = actual.after(a.UnloadModels("n-0-1g-0", ("app.t0.b.g1",)))
    found = in_service(generation(ONE), actual, ["app"]).bundle
    assert [[m.name for m in w.models] for w in found.workers.values()] == [["app.t0.a.g1"], ["app.t1.b.g1"]]
    assert [[entry.model for entry in t.route] for t in found.graphs["app"].tasks] == [["app.t0.a.g1"], ["app.t1.b.g1"]]


def test_a_slice_whose_usual_model_has_made_room_keeps_its_standby_variant() -> None:
    actual = existing(ONE)
    actual = actual.after(a.SetRoutes(routes_to_set(actual, generation(ONE), ["app"])))
    actual = actual.after(a.UnloadModels("n-0-1g-0", ("app.t0.a.g1",)))
    assert routes_to_set(actual, generation(ONE), ["app"]) == {}
    found = routes_to_set(actual, generation(ONE), [])
    assert {name: [entry.model for entry in route] for name, route in found.items()} == {"app.t1.g1": ["app.t1.a.g1"]}


def test_arrivals_right_after_a_change_during_a_burst_are_counted() -> None:
    world = deployed(World({1: ONE, 2: OTHER}))
    world.arrive(BURST)
    assert routed(world) == STANDBY
    world.send(e.DeployRequested(wanted(20.0)))
    world.arrive([30.0])
    assert world.state.phase is Phase.READY
