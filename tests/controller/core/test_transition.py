from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.compiler.bundle import Bundle, Worker
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.order import ordered
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.controller.core.teardown import stages_down
from jigsaw_triton.controller.core.transition import stages_to
from tests.controller.core.transitions import ONE, after, reached, routed, routes_while, run, way
from tests.controller.worlds import bundle, generation, profiled, steps, with_contents, worker


def test_a_first_deployment_starts_everything_before_the_front() -> None:
    stages = stages_to(Actual(), None, generation(ONE))
    assert [type(x).__name__ for x in stages[0].actions] == ["StartGateway", "BringUp", "BringUp"]
    assert [s.commits for s in stages] == [False, False, True]
    assert isinstance(stages[1].actions[0], a.LoadGateway)
    assert isinstance(stages[2].actions[0], a.Flip)
    assert reached(run(Actual(), stages), ONE)


def test_another_variant_at_the_same_place_is_loaded_beside_the_old_model() -> None:
    two = bundle(2, [worker("0/1g@0", ("t0", "b"), generation=2), worker("0/1g@1", ("t1", "a"), generation=1)])
    actual = after(ONE)
    stages = stages_to(actual, generation(ONE), generation(two))
    assert stages[0].actions == (a.LoadModels("n-0-1g-0", two.workers["n-0-1g-0"].models),)
    assert a.UnloadModels("n-0-1g-0", ("app.t0.a.g1",)) in stages[-1].actions
    drain = next(s.actions for s in stages if any(isinstance(x, a.Drain) for x in s.actions))
    assert drain == (a.Drain("n-0-1g-0", ("app.t0.a.g1",)),)
    assert reached(run(actual, stages), two)


def test_where_its_last_worker_makes_room_a_generation_gives_way_to_one_with_all_tasks() -> None:
    before = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("1/1gx2@6", ("t1", "a"))])
    target = bundle(
        2,
        [
            worker("0/1g@0", ("t1", "a")),
            worker("1/1g@6", ("t0", "a")),
            worker("1/1gx2@0", ("t1", "a"), generation=2),
        ],
    )
    assert routes_while(before, target)["remove workers that leave from the routes"] == ["app.t1.a.g2"]


def test_a_rollback_first_removes_routes_that_no_front_has_called() -> None:
    two = bundle(2, [worker("0/2g@0", ("t0", "b"), generation=2), worker("0/1g@2", ("t1", "a"), generation=2)])
    actual = after(ONE)
    for stage in stages_to(actual, generation(ONE), generation(two)):
        if stage.commits:
            break
        actual = run(actual, (stage,))
    assert actual.routes.keys() == {f"app.{task}.g{number}" for task in ("t0", "t1") for number in (1, 2)}
    back = stages_to(actual, generation(ONE), generation(ONE))
    assert back[0].actions == (a.UnloadGateway(("app.t0.g2", "app.t1.g2")),)
    assert reached(run(actual, back), ONE)


def test_the_probe_of_a_front_is_the_sample_request_of_its_own_generation() -> None:
    def sampled(made: Bundle, file: str) -> Generation:
        found = generation(made)
        graph = found.wanted.graphs["app"]
        samples = dict.fromkeys(graph.inputs, Path(file))
        return replace(found, wanted=replace(found.wanted, graphs={"app": replace(graph, samples=samples)}))

    def flips(stages: Iterable[Stage]) -> list[a.Flip]:
        return [action for stage in stages for action in stage.actions if isinstance(action, a.Flip)]

    old, new = sampled(ONE, "old.npy"), sampled(bundle(2, ONE.workers.values()), "new.npy")
    actual = run(Actual(), stages_to(Actual(), None, old))
    there = flips(stages_to(actual, old, new))
    back = flips(stages_to(actual.after(there[0]), old, old))
    assert [set(map(str, flip.samples.values())) for flip in (*there, *back)] == [{"new.npy"}, {"old.npy"}]


def test_a_worker_that_must_make_room_is_drained_before_it_stops() -> None:
    two = bundle(2, [worker("0/2g@0", ("t0", "a"), generation=2), worker("1/1g@0", ("t1", "a"), generation=2)])
    actual = after(ONE)
    order = [x for s in stages_to(actual, generation(ONE), generation(two)) for x in s.actions]
    kinds = [type(x).__name__ for x in order]
    # The other GPU has room for t1's new worker, so the old one can make room without leaving t1 unserved.
    assert kinds[:2] == ["BringUp", "SetRoutes"]
    assert kinds.index("Drain") < kinds.index("Retire") < [i for i, k in enumerate(kinds) if k == "BringUp"][1]
    routes = order[1]
    assert isinstance(routes, a.SetRoutes)
    assert [entry.worker for entry in routes.routes["app.t1.g1"]] == ["n-1-1g-0"]


def test_a_new_model_takes_over_from_the_one_beside_it_once_its_requests_have_ended() -> None:
    two = bundle(2, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "b"), generation=2)])
    assert routes_while(ONE, two) == {
        "send new requests to the other generation": ["app.t1.b.g2", "app.t1.a.g1"],
        "add the new workers to the routes": ["app.t1.b.g2"],
    }
    stages = stages_to(after(ONE), generation(ONE), generation(two))
    titles = [stage.title for stage in stages]
    at = titles.index("wait for the requests of the generation that leaves")
    assert stages[at].actions == (a.Settle("app", 1),)
    assert titles[at - 1 : at + 2 : 2] == [
        "send new requests to the other generation",
        "add the new workers to the routes",
    ]


def test_new_workers_serve_beside_the_old_ones_until_these_leave() -> None:
    two = bundle(2, [worker("0/1g@0", ("t0", "a")), worker("0/1g@2", ("t1", "b"), generation=2)])
    assert routes_while(ONE, two) == {
        "add the new workers to the routes": ["app.t1.a.g1", "app.t1.b.g2"],
        "send new requests to the other generation": ["app.t1.b.g2", "app.t1.a.g1"],
        "hand queued requests of the old generation to the new workers": ["app.t1.b.g2"],
    }


def test_a_generation_gets_no_request_before_it_has_a_worker_for_each_task() -> None:
    two = bundle(2, [worker("0/1g@0", ("t0", "b"), generation=2), worker("1/2g@0", ("t1", "b"), generation=2)])
    stages = stages_to(after(ONE), profiled(ONE), profiled(two))
    loaded = next(i for i, s in enumerate(stages) if any(isinstance(x, a.LoadModels) for x in s.actions))
    started = next(i for i, s in enumerate(stages) if any(isinstance(x, a.BringUp) for x in s.actions))
    assert loaded < started
    assert not any(isinstance(x, a.SetRoutes) for s in stages[:started] for x in s.actions)


def routes_of(stages: Iterable[Stage], name: str) -> list[list[tuple[str, str, bool]]]:
    """Returns (worker, model, closed) of each entry of a route, each time that the route is set."""
    set_routes = (x.routes for stage in stages for x in stage.actions if isinstance(x, a.SetRoutes))
    return [[(e.worker, e.model, e.closed) for e in routes[name]] for routes in set_routes if name in routes]


def test_a_worker_stands_in_on_a_free_slice_while_another_makes_room() -> None:
    one = bundle(1, [worker("0/4g@0", ("t0", "a")), worker("0/3g@4", ("t1", "a"))])
    two = bundle(2, [worker("0/2g@0", ("t0", "a"), generation=2), worker("0/3g@4", ("t1", "a"))])
    actual, stages = way(profiled(one), profiled(two))
    started = [(s.step, x.worker.name) for s in stages for x in s.actions if isinstance(x, a.BringUp)]
    stopped = [(s.step, x.worker.name) for s in stages for x in s.actions if isinstance(x, a.Retire)]
    assert started == [(1, "n-1-2g-0"), (2, "n-0-2g-0")]
    assert stopped == [(2, "n-0-4g-0"), (4, "n-1-2g-0")]
    assert all(routes_of(stages, "app.t0.g1"))
    assert reached(run(actual, stages), two)


def test_models_that_do_not_fit_into_memory_together_replace_each_other() -> None:
    one = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))])
    two = bundle(2, [worker("0/1g@0", ("t0", "b"), generation=2), worker("0/1g@1", ("t1", "a"))])
    full = replace(profiled(two, memory_mib=9000.0), wanted=replace(profiled(two, memory_mib=9000.0).wanted))
    alone = replace(full.wanted, cluster=replace(full.wanted.cluster, gpus=full.wanted.cluster.gpus[:1]))
    actual, stages = way(profiled(one, memory_mib=9000.0), replace(full, wanted=alone))
    kinds = [type(x).__name__ for stage in stages for x in stage.actions]
    assert kinds.index("UnloadModels") < kinds.index("LoadModels")
    assert reached(run(actual, stages), two)


def test_ensembles_get_only_workers_of_their_own_generation() -> None:
    one = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))], target="ensemble")
    two = bundle(2, [worker("0/1g@0", ("t0", "a")), worker("0/1g@2", ("t1", "b"), generation=2)], target="ensemble")
    assert routes_while(one, two) == {}
    assert reached(after(two, one), two)


def test_slices_with_models_of_both_generations_serve_one_of_them() -> None:
    """The running generation, until the new one has all tasks; neither would have enough beside the other."""
    one = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))])
    two = bundle(2, [worker("0/1g@0", ("t0", "b"), generation=2), worker("1/1g@1", ("t1", "b"), generation=2)])
    found = [{t: [e.model for e in route] for t, route in routes.items()} for routes in routed(one, two)]
    assert found[-1] == {"t0": ["app.t0.b.g2"], "t1": ["app.t1.b.g2"]}
    old = {"t0": ["app.t0.a.g1"], "t1": ["app.t1.a.g1"]}
    assert all(routes in (old, found[-1]) or len(routes["t1"]) > 1 for routes in found)


def test_requests_are_bound_on_arrival_if_the_choice_at_one_task_could_overload_another() -> None:
    """The new generation has two of three workers for t0, but one of three for t1."""
    kept = [worker(place, (task, "a")) for place, task in (("0/1g@0", "t0"), ("0/1g@1", "t1"), ("0/1g@2", "t1"))]
    more = [("1/1g@0", "t0"), ("1/1g@1", "t0"), ("1/1g@2", "t1")]
    one = bundle(1, kept)
    two = bundle(2, [worker(place, (task, "b"), generation=2) for place, task in more])
    entries = [entry for routes in routed(one, two) for route in routes.values() for entry in route]
    assert {(e.generations, e.weights) for e in entries} == {((1,), (0.5,)), ((2,), (0.5,))}


def test_the_first_free_worker_decides_if_only_one_task_has_new_models() -> None:
    one = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))])
    two = bundle(2, [worker("1/1g@0", ("t0", "b"), generation=2), worker("0/1g@1", ("t1", "a"))])
    entries = [entry for routes in routed(one, two) for route in routes.values() for entry in route]
    assert {(e.generations, e.weights) for e in entries} == {((1,), ()), ((2,), ()), ((1, 2), ())}


def test_a_model_with_the_same_content_on_a_new_slice_serves_both_generations() -> None:
    one = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))])
    moved = worker("1/2g@0", ("t0", "a"), generation=2)
    (model,) = moved.models
    (before,) = one.workers["n-0-1g-0"].models
    moved = replace(moved, models=(replace(model, content="t0a", digest="of a 2g"),))
    kept = replace(one.workers["n-0-1g-0"], models=(replace(before, content="t0a"),))
    one = bundle(1, [kept, one.workers["n-0-1g-1"]])
    routes = routed(one, bundle(2, [moved, one.workers["n-0-1g-1"]]))
    assert [(e.worker, e.generations) for e in routes[0]["t0"]] == [("n-0-1g-0", (1, 2)), ("n-1-2g-0", (1, 2))]


T1 = worker("0/3g@4", ("t1", "a"))


@pytest.mark.parametrize("joined", [True, False])
def test_a_rollback_uses_workers_of_the_failed_generation_whose_models_have_the_same_content(joined: bool) -> None:
    one = with_contents(bundle(1, [worker(at, ("t0", "a")) for at in ("0/4g@0", "1/4g@0")] + [T1]))
    two = with_contents(bundle(2, [worker(at, ("t0", "a"), generation=2) for at in ("0/2g@0", "1/2g@0")] + [T1]))
    actual, stages = way(profiled(one), profiled(two))
    before = actual.routes
    for stage in stages:
        if stage.commits:
            break
        actual = run(actual, (stage,))
    actual = actual if joined else replace(actual, routes=before)
    found = set()
    for stage in stages_to(actual, profiled(one), profiled(one)):
        actual = run(actual, (stage,))
        live = [e for e in actual.routes["app.t0.g1"] if e.worker in actual.workers]
        found |= {(e.batch, e.slots) for e in live if e.worker == "n-1-2g-0" and 1 in e.generations}
        assert live or not joined, stage.title
    assert found == {(4, 1)}


def test_models_of_a_failed_generation_beside_the_running_ones_add_no_capacity() -> None:
    one = with_contents(ONE)
    actual = after(one)
    for place, task in (("0/1g@0", "t0"), ("0/1g@1", "t1")):
        beside = with_contents(bundle(2, [worker(place, (task, "a"), generation=2)])).workers
        actual = run(actual, (Stage("", tuple(a.LoadModels(name, w.models) for name, w in beside.items())),))
    told = ordered(actual, profiled(one), profiled(one))
    assert (told.before_rps, told.steps) == ({"app": 10.0}, ())


@pytest.mark.parametrize("target", ["graph", "ensemble"])
def test_a_new_worker_with_a_model_that_runs_serves_the_running_generation(target: str) -> None:
    one = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))], target=target)
    two = bundle(2, [*one.workers.values(), worker("0/1g@2", ("t1", "a"))], target=target)
    stages = stages_to(after(one), generation(one), generation(two))
    joined = [action.routes for stage in stages for action in stage.actions if isinstance(action, a.SetRoutes)]
    assert [entry.worker for entry in joined[0]["app.t1.g1"]] == ["n-0-1g-1", "n-0-1g-2"]


def test_workers_that_a_change_has_left_out_of_the_routes_return_before_others_start() -> None:
    one = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t0", "a")), worker("0/1g@2", ("t1", "a"))])
    complete = after(one)
    routes = {**complete.routes, "app.t0.g1": complete.routes["app.t0.g1"][:1]}
    two = bundle(2, [*one.workers.values(), worker("1/1g@0", ("t1", "a"))])
    first, second = stages_to(replace(complete, routes=routes), generation(one), generation(two))[:2]
    (returned,) = first.actions
    assert isinstance(returned, a.SetRoutes)
    assert [entry.worker for entry in returned.routes["app.t0.g1"]] == ["n-0-1g-0", "n-0-1g-1"]
    assert [type(action) for action in second.actions] == [a.BringUp]


def test_routes_of_an_earlier_generation_that_was_handed_over_follow_those_of_the_running_one() -> None:
    """A queue of the earlier generation may still have requests when a worker that answers them makes room."""
    two = bundle(2, [worker("0/1g@0", ("t0", "b"), generation=2), worker("0/1g@1", ("t1", "a"))])
    three = bundle(3, [worker("0/2g@0", ("t0", "b"), generation=2), worker("1/1g@1", ("t1", "a"))])
    actual = after(two, ONE)
    assert {"app.t0.g1", "app.t0.g2"} <= actual.routes.keys()
    changes = 0
    for stage in stages_to(actual, generation(two), generation(three)):
        for action in stage.actions:
            actual = actual.after(action)
            if isinstance(action, a.SetRoutes) and "app.t0.g1" in actual.routes:
                assert actual.routes["app.t0.g1"] == actual.routes["app.t0.g2"]
                changes += 1
    assert changes


def test_down_stops_the_gateway_first() -> None:
    stages = stages_down(after(ONE))
    assert isinstance(stages[0].actions[0], a.StopGateway)
    assert {x.worker.name for x in stages[1].actions if isinstance(x, a.Retire)} == set(ONE.workers)
    assert stages_down(Actual()) == ()


def processes(count: int, *models: tuple[str, str], place: str = "0/2g@0", generation: int = 1) -> list[Worker]:
    """Returns workers that share a MIG instance under MPS."""
    alone = worker(place, *models, generation=generation)
    return [replace(alone, name=f"{alone.name}-p{n}", process=n) for n in range(1, count + 1)]


def test_processes_that_share_an_instance_need_not_make_room_for_each_other() -> None:
    one = bundle(1, [*processes(2, ("t0", "a")), worker("0/1g@2", ("t1", "a"))])
    two = bundle(2, [*processes(3, ("t0", "a")), worker("0/1g@2", ("t1", "a"))])
    actual = after(one)
    stages = stages_to(actual, generation(one), generation(two))
    assert stages[0].actions == (a.BringUp(two.workers["n-0-2g-0-p3"]),)
    assert reached(run(actual, stages), two)
    fewer = stages_to(after(two), generation(two), generation(one))
    assert a.Retire(two.workers["n-0-2g-0-p3"]) in fewer[-1].actions
    assert not any(isinstance(action, a.BringUp) for stage in fewer for action in stage.actions)


@pytest.mark.parametrize("count", [1, 2])
def test_processes_and_a_server_alone_on_the_instance_make_room_for_each_other(count: int) -> None:
    streams = bundle(1, [worker("0/2g@0", ("t0", "a")), worker("0/1g@2", ("t1", "a"))])
    mps = bundle(2, [*processes(count, ("t0", "a"), generation=2), worker("0/1g@2", ("t1", "a"))])
    for before, target in ((streams, mps), (mps, replace(streams, generation=3))):
        actual = after(before)
        stages = stages_to(actual, generation(before), generation(target))
        kinds = [type(action).__name__ for stage in stages for action in stage.actions]
        assert kinds.index("Retire") < kinds.index("BringUp")
        assert reached(run(actual, stages), target)


def test_a_steps_worker_never_makes_room_and_keeps_its_process_when_its_code_changes() -> None:
    one = bundle(1, [worker("0/7g@0", ("t0", "a"), ("t1", "a")), steps(1)], ["t0", "s", "t1"])
    two = bundle(2, [worker("0/3g@0", ("t0", "a"), ("t1", "a"), generation=2), steps(2)], ["t0", "s", "t1"])
    actual = after(one)
    stages = stages_to(actual, generation(one), generation(two))
    actions = [action for stage in stages for action in stage.actions]
    assert [action.worker.name for action in actions if isinstance(action, a.Retire)] == ["n-0-7g-0"]
    assert a.LoadModels("steps-app", two.workers["steps-app"].models) in actions
    assert a.UnloadModels("steps-app", ("app.s.g1",)) in actions
    assert reached(run(actual, stages), two)
