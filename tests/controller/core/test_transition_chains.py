import pytest

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.transition import stages_to
from tests.controller.core.transitions import CHAINED, after, reached, routes_while, run
from tests.controller.worlds import ONE, bundle, chained, generation, profiled, worker


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


def test_a_chain_is_loaded_after_its_members_and_unloaded_before_them() -> None:
    two = bundle(2, [worker("0/1g@0", ("t0", "b"), generation=2), worker("0/1g@1", ("t1", "a"), generation=2)])
    forth = stages_to(after(two), generation(two), generation(CHAINED))
    loads = [action.models for stage in forth for action in stage.actions if isinstance(action, a.LoadModels)]
    assert [[model.task for model in models] for models in loads] == [["t0", "t1", "t0~t1"]]
    back = stages_to(after(CHAINED), generation(CHAINED), generation(two))
    gone = [action.models for stage in back for action in stage.actions if isinstance(action, a.UnloadModels)]
    assert gone == [("app.t0~t1.a~a.g1", "app.t1.a.g1", "app.t0.a.g1")]
