import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jigsaw_triton.compiler.bundle import Bundle, RouteEntry, Worker
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.order import ordered
from jigsaw_triton.controller.core.standby import routes_to_set
from jigsaw_triton.controller.core.transition import Stage, stages_down, stages_to
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.layouts import fits, maximal_layouts
from tests.controller.worlds import (
    BOARD,
    bundle,
    chained,
    generation,
    profiled,
    standing_by,
    steps,
    with_contents,
    worker,
)

ONE = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a"))])


def run(actual: Actual, stages: tuple[Stage, ...]) -> Actual:
    for stage in stages:
        for action in stage.actions:
            actual = actual.after(action)
    return actual


def after(target: Bundle, before: Bundle | None = None, actual: Actual | None = None) -> Actual:
    """Returns the servers and models after the transition to `target`, from `before` or from `actual`."""
    actual = actual or Actual()
    running = None
    if before is not None:
        running = generation(before)
        actual = run(actual, stages_to(actual, None, running))
    return run(actual, stages_to(actual, running, generation(target)))


def loaded(actual: Actual) -> dict[str, set[str]]:
    return {name: {model.name for model in found.models} for name, found in actual.workers.items()}


def reached(actual: Actual, target: Bundle) -> bool:
    tasks = {t.name: t for g in target.graphs.values() for t in g.tasks}
    models = {m.name for g in target.graphs.values() for m in g.models}
    every = [task for g in target.graphs.values() for task in g.every_task.values()]
    ours = {(e.worker, e.model) for task in every for e in (*task.route, *task.standby)}
    return (
        actual.gateway
        and loaded(actual) == {w.name: {m.name for m in (*w.models, *w.standby)} for w in target.workers.values()}
        and actual.models.keys() >= models
        and all(actual.routes[name] == task.route for name, task in tasks.items())
        # Lingering routes lead only to the target's models.
        and all((e.worker, e.model) in ours for route in actual.routes.values() for e in route)
        and dict(actual.fronts) == {name: g.front for name, g in target.graphs.items()}
    )


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


def routes_while(before: Bundle, target: Bundle) -> dict[str, list[str]]:
    """Returns, for each stage that changes routes, the models to which t1's old route leads after it."""
    stages = stages_to(after(before), profiled(before), profiled(target))
    return {
        stage.title: [entry.model for entry in action.routes["app.t1.g1"]]
        for stage in stages
        for action in stage.actions
        if isinstance(action, a.SetRoutes) and "app.t1.g1" in action.routes
    }


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


def way(before: Generation, target: Generation) -> tuple[Actual, tuple[Stage, ...]]:
    """Returns what exists before a change, and its stages."""
    actual = run(Actual(), stages_to(Actual(), None, before))
    return actual, stages_to(actual, before, target)


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


CHAINED = chained(bundle(1, [worker("0/1g@0", ("t0", "a"), ("t1", "a"))]))


def titles(before: Bundle, target: Bundle) -> list[str]:
    return [stage.title for stage in stages_to(after(before), generation(before), generation(target))]


def test_a_graph_calls_tasks_one_by_one_before_the_worker_of_its_chain_makes_room() -> None:
    two = bundle(2, [worker("0/2g@0", ("t0", "a"), generation=2), worker("1/1g@0", ("t1", "a"), generation=2)])
    found = titles(CHAINED, two)
    begin = found.index("add routes for the single tasks of chains")
    assert found[begin : begin + 4] == [
        "add routes for the single tasks of chains",
        "switch the fronts to calling these tasks one by one",
        "remove the routes of chains",
        "remove workers that leave from the routes",
    ]
    assert "switch the fronts to the new generation" in found[begin + 4 :]
    assert reached(after(two, CHAINED), two)


def test_a_chain_is_called_until_the_switch_if_its_worker_need_not_make_room() -> None:
    two = bundle(2, [worker("0/1g@1", ("t0", "a"), generation=2), worker("1/1g@0", ("t1", "a"), generation=2)])
    found = titles(CHAINED, two)
    assert "switch the fronts to calling these tasks one by one" not in found
    assert found.index("switch the fronts to the new generation") < found.index("remove the old routes")
    assert reached(after(two, CHAINED), two)


def test_models_of_a_chain_take_over_single_tasks() -> None:
    two = chained(bundle(2, [worker("0/1g@2", ("t0", "a"), ("t1", "a"), generation=2)]))
    assert routes_while(ONE, two) == {
        "add the new workers to the routes": ["app.t1.a.g1", "app.t1.a.g2"],
        "send new requests to the other generation": ["app.t1.a.g2", "app.t1.a.g1"],
        "hand queued requests of the old generation to the new workers": ["app.t1.a.g2"],
    }


def test_a_chain_keeps_its_workers_until_its_front_calls_the_tasks_one_by_one() -> None:
    one = chained(bundle(1, [worker("0/1g@0", ("t0", "b"), ("t1", "a")), worker("1/1g@0", ("t0", "b"), ("t1", "a"))]))
    two = bundle(2, [worker("0/1g@0", ("t0", "a"), ("t1", "a")), worker("1/1g@0", ("t0", "a"))])
    actual = after(one)
    for stage in stages_to(actual, generation(one), generation(two)):
        actual = run(actual, (stage,))
        assert all(actual.routes.values()), stage.title


def test_a_chain_takes_over_the_same_chain() -> None:
    two = chained(bundle(2, [worker("0/1g@2", ("t0", "a"), ("t1", "a"), generation=2)]))
    handed = [
        action.routes["app.t0~t1.g1"]
        for stage in stages_to(after(CHAINED), profiled(CHAINED), profiled(two))
        for action in stage.actions
        if isinstance(action, a.SetRoutes)
    ]
    assert [[entry.model for entry in route] for route in handed] == [
        ["app.t0~t1.a~a.g1", "app.t0~t1.a~a.g2"],
        ["app.t0~t1.a~a.g2", "app.t0~t1.a~a.g1"],
        ["app.t0~t1.a~a.g2"],
    ]


def test_tasks_that_are_called_one_by_one_are_served_by_the_new_workers_of_a_chain_from_the_start() -> None:
    one = chained(bundle(1, [worker("0/1g@0", ("t0", "a"), ("t1", "a")), worker("1/2g@0", ("t0", "a"), ("t1", "a"))]))
    same = [worker(place, ("t0", "a"), ("t1", "a")) for place in ("0/1g@0", "0/1g@1", "1/1g@0")]
    two = chained(bundle(2, same))
    actual = after(one)
    for stage in stages_to(actual, generation(one), generation(two)):
        actual = run(actual, (stage,))
        if stage.title == "switch the fronts to calling these tasks one by one":
            workers = {entry.worker for entry in actual.routes["app.t0.g1"]}
            assert workers == {"n-0-1g-0", "n-0-1g-1", "n-1-2g-0"}
            return
    pytest.fail("the chain was not taken apart")


def routed(before: Bundle, target: Bundle, *, memory_mib: float = 900.0) -> list[dict[str, list[RouteEntry]]]:
    """Returns the open entries of each task's old route, each time that routes have changed before the switch."""
    found, actual = [], after(before)
    for stage in stages_to(actual, profiled(before), profiled(target, memory_mib=memory_mib)):
        if stage.commits:
            break
        actual = run(actual, (stage,))
        if any(isinstance(action, a.SetRoutes) for action in stage.actions):
            found.append({t: [e for e in actual.routes[f"app.{t}.g1"] if not e.closed] for t in ("t0", "t1")})
    return found


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


def test_a_chain_is_loaded_after_its_members_and_unloaded_before_them() -> None:
    two = bundle(2, [worker("0/1g@0", ("t0", "b"), generation=2), worker("0/1g@1", ("t1", "a"), generation=2)])
    forth = stages_to(after(two), generation(two), generation(CHAINED))
    loads = [action.models for stage in forth for action in stage.actions if isinstance(action, a.LoadModels)]
    assert [[model.task for model in models] for models in loads] == [["t0", "t1", "t0~t1"]]
    back = stages_to(after(CHAINED), generation(CHAINED), generation(two))
    gone = [action.models for stage in back for action in stage.actions if isinstance(action, a.UnloadModels)]
    assert gone == [("app.t0~t1.a~a.g1", "app.t1.a.g1", "app.t0.a.g1")]


def test_down_stops_the_gateway_first() -> None:
    stages = stages_down(after(ONE))
    assert isinstance(stages[0].actions[0], a.StopGateway)
    assert {x.worker.name for x in stages[1].actions if isinstance(x, a.Retire)} == set(ONE.workers)
    assert stages_down(Actual()) == ()


PLACES = [layout for layout in maximal_layouts(CATALOG[BOARD]) if len(layout) > 1]


@st.composite
def bundles(draw: st.DrawFn, number: int, *, variants: str = "ab", generations: Sequence[int] = ()) -> Bundle:
    """Bundles with random slices on two GPUs and random models in them, some of them as processes under MPS.

    Each task has at least one model, or every worker has a chain of both. The graph is compiled to one front, or to an
    ensemble with a front for each task. It may have a Python step. Models may be those of generation 1, and workers
    with one model may have another one that stands by.

    Args:
        draw: Function that draws from a strategy.
        number: Number of the generation.
        variants: Variants of the tasks.
        generations: Generations of the models; none for the first and this one.
    """
    kept = st.sampled_from(generations or [1, number])
    target = draw(st.sampled_from(["graph", "ensemble"]))
    workers: list[Worker] = []
    both = [(task, draw(st.sampled_from(variants))) for task in ("t0", "t1")] if draw(st.booleans()) else []
    for gpu in range(2):
        layout = draw(st.sampled_from(PLACES))
        for placement in draw(st.lists(st.sampled_from(layout), unique=True, min_size=1)):
            models = both or [(draw(st.sampled_from(["t0", "t1"])), draw(st.sampled_from(variants)))]
            alone = worker(f"{gpu}/{placement.slice}@{placement.start}", *models, generation=draw(kept))
            count = 0 if both else draw(st.sampled_from([0, 0, 0, 1, 2]))
            workers += [replace(alone, name=f"{alone.name}-p{n}", process=n) for n in range(1, count + 1)] or [alone]
    made = bundle(number, workers, target=target)
    if both:
        return chained(made)
    missing = [t.task for t in made.graphs["app"].tasks if not t.route]
    if missing:
        first = workers[0]
        extra = [(m.task, m.variant) for m in first.models] + [(t, "a") for t in missing]
        assert first.place is not None
        at = f"{first.place.gpu.index}/{first.place.placement}"
        workers = [w for w in workers if w.place != first.place]
        workers.insert(0, worker(at, *extra, generation=draw(kept)))
    if draw(st.booleans()):
        workers.append(steps(number))
    made = bundle(number, workers, target=target)
    return standing_by(made, draw(kept)) if draw(st.booleans()) else made


def switched(actual: Actual, running: Generation, serving: frozenset[str]) -> Actual:
    """Returns the record after a switch to the standby variants of these graphs, and to the usual ones of others."""
    return actual.after(a.SetRoutes(routes_to_set(actual, running, serving)))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(before=bundles(1), target=bundles(2), standby=st.sampled_from([frozenset[str](), frozenset({"app"})]))
def test_any_transition_reaches_its_target_and_keeps_the_invariants(
    before: Bundle, target: Bundle, standby: frozenset[str]
) -> None:
    running = generation(before)
    actual = switched(after(before), running, standby)
    for stage in stages_to(actual, running, generation(target), standby=standby):
        for action in stage.actions:
            _check_action(actual, action)
            actual = actual.after(action)
            _check_routes(actual, before, target)
        for gpu in range(2):
            places = {w.place for w in actual.workers.values() if w.place is not None and w.place.gpu.index == gpu}
            assert fits(CATALOG[BOARD], [place.placement for place in places]) is None
    assert reached(switched(actual, generation(target), frozenset()), target)


@settings(max_examples=100, deadline=None)
@given(
    before=bundles(1),
    target=bundles(2),
    memory_mib=st.sampled_from([900.0, 4000.0]),
    known=st.sampled_from([lambda made: made, with_contents]),
    stop=st.integers(0, 12),
)
def test_routes_carry_the_capacity_that_the_step_states(
    before: Bundle, target: Bundle, memory_mib: float, known: Callable[[Bundle], Bundle], stop: int
) -> None:
    """Every worker of these plans carries at most 10 requests a second. Large models do not fit beside others.

    The change stops at some stage and goes back.
    """
    before, target = known(before), known(target)
    actual = after(before)
    planned = ordered(actual, profiled(before), profiled(target))
    demand_rps = min(planned.before_rps["app"], planned.steps[-1].after_rps["app"]) if planned.steps else 0.0
    assume(demand_rps > 0)
    running, new = (profiled(made, demand_rps=demand_rps, memory_mib=memory_mib) for made in (before, target))
    for stage in _carries_what_it_states(actual, running, new, demand_rps):
        stop = -1 if stage.commits else stop - 1
        actual = run(actual, (stage,)) if stop >= 0 else actual
    for _ in _carries_what_it_states(actual, running, running, demand_rps):
        pass


def _carries_what_it_states(actual: Actual, running: Generation, new: Generation, demand_rps: float) -> Iterator[Stage]:
    """Yields the stages of a change, and checks after each action that its routes carry what its step states."""
    told = ordered(actual, running, new).steps
    forms = [form for made in (running, new) for form in made.bundle.graphs["app"].forms]
    chains = {task.name for task in forms[0].tasks if "~" in task.task}
    chained = bool(chains)
    for stage in stages_to(actual, running, new):
        for action in stage.actions:
            actual = actual.after(action)
            # Until the routes after those of the chains, the running generation alone answers.
            chained = bool(chains & actual.routes.keys()) or (chained and not isinstance(action, a.SetRoutes))
            if stage.step:
                step = told[stage.step - 1]
                form = next(form for form in forms if form.front == actual.fronts["app"])
                routes = [actual.routes[task.name] for task in form.tasks if task.task != "s"]
                carried_rps = _carried_rps([[e for e in route if not e.closed] for route in routes])
                least_rps = demand_rps if chained or form.apart is not None else math.inf
                assert carried_rps >= 0.999 * min(step.during_rps["app"], step.after_rps["app"], least_rps), stage
        yield stage


def _carried_rps(routes: Sequence[Sequence[RouteEntry]]) -> float:
    """Returns the requests a second of a graph of two tasks, or of a chain, whichever generation a request chooses."""
    numbers = sorted({number for route in routes for entry in route for number in entry.generations}) or [0]
    of_each, only = (
        [{n: 10.0 * len({e.worker for e in route if belongs(e, n)}) for n in numbers} for route in routes]
        for belongs in (
            lambda e, n: not e.generations or n in e.generations,
            lambda e, n: e.generations == (n,),
        )
    )
    rate_rps = min(10.0 * len({e.worker for e in route}) for route in routes)
    weights = {n: w for route in routes for e in route for n, w in zip(e.generations, e.weights, strict=False)}
    if weights:
        return min(rate_rps, *(at[n] / weights[n] for at in of_each for n in numbers if weights[n] > 0))
    for number in numbers if len(numbers) > 1 else ():
        for here, there in permutations(range(len(routes)), 2):
            # Requests that choose a generation at one task cannot choose another one at the next.
            if only[here][number] > of_each[there][number]:
                rate_rps = min(rate_rps, of_each[there][number])
    return rate_rps


def _check_action(actual: Actual, action: a.Action) -> None:
    """Checks that no action removes a model or worker to which a route leads."""
    led_to = {(e.worker, e.model) for route in actual.routes.values() for e in route}
    match action:
        case a.Retire(gone):
            assert gone.name not in {name for name, _ in led_to}
        case a.UnloadModels(name, models):
            assert not {(name, model) for model in models} & led_to
        case a.Flip(_, front):
            assert front.name == "app"
            assert all(actual.routes.values())
            assert actual.models.keys() <= actual.routes.keys()


def _check_routes(actual: Actual, *generations: Bundle) -> None:
    """Checks that requests of a generation go only to its own models, if it has one for every task on the routes.

    Requests of an ensemble are not bound, so the route of each of its tasks leads to models of one generation only.
    """
    for compiled in (made.graphs["app"] for made in generations):
        routes = {t.task: actual.routes[t.name] for t in compiled.every_task.values() if t.name in actual.routes}
        answers = {task: {_answers(actual.workers, e) for e in route} for task, route in routes.items()}
        if compiled.target == "ensemble":
            assert all(any(answers[task] <= _own(made, task) for made in generations) for task in routes)
            continue
        for made in generations:
            own = {task: _own(made, task) for task in routes}
            bound = {
                task: {_answers(actual.workers, e) for e in route if made.generation in e.generations}
                for task, route in routes.items()
            }
            if all(bound[task] & own[task] for task in routes):
                assert all(bound[task] <= own[task] for task in routes)


def _own(made: Bundle, task: str) -> set[object]:
    """Returns what the models of a bundle that do a task answer."""
    tasks = [t for t in made.graphs["app"].every_task.values() if t.task == task]
    return {_answers(made.workers, e) for t in tasks for e in (*t.route, *t.standby)}


def _answers(workers: Mapping[str, Worker], entry: RouteEntry) -> object:
    """Returns the key of the answers that the model of a route's entry gives."""
    worker = workers[entry.worker]
    return next(model.answers for model in (*worker.models, *worker.standby) if model.name == entry.model)


@settings(max_examples=60, deadline=None)
@given(
    before=bundles(1),
    target=bundles(2),
    stop=st.integers(0, 30),
    standby=st.sampled_from([frozenset[str](), frozenset({"app"})]),
)
def test_a_transition_can_be_rolled_back_from_any_stage_before_the_switch(
    before: Bundle, target: Bundle, stop: int, standby: frozenset[str]
) -> None:
    running = generation(before)
    actual = switched(after(before), running, standby)
    for stage in stages_to(actual, running, generation(target), standby=standby)[:stop]:
        if stage.commits:
            break
        for action in stage.actions:
            actual = actual.after(action)
    back = run(actual, stages_to(actual, running, running, standby=standby))
    assert reached(switched(back, running, frozenset()), before)


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
