from dataclasses import replace

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.controller.core.stage_list import StageList
from jigsaw_triton.gpus.model import GpuId
from tests.controller.core.transitions import after
from tests.controller.worlds import ONE, bundle, worker

FIRST, SECOND = ONE.workers.values()


def test_a_stage_has_its_step_and_the_actions_to_begin_with_and_changes_what_exists() -> None:
    stages = StageList(Actual())
    stages.begin_with([a.BringUp(FIRST)])
    stages.at_step(1, 2)
    stages.add("start", [a.BringUp(SECOND)])
    stages.add("nothing", [])
    stages.at_step()
    stages.add("commit", [], commits=True)
    assert stages.all() == (
        Stage("start", (a.BringUp(FIRST), a.BringUp(SECOND)), step=1, steps=2),
        Stage("commit", (), commits=True),
    )
    assert stages.actual.workers == ONE.workers


def test_requests_of_a_generation_end_before_its_routes_go() -> None:
    actual = after(ONE)
    wanted = {name: tuple(replace(entry, generations=(2,)) for entry in route) for name, route in actual.routes.items()}
    both = {name: tuple(replace(entry, generations=(1, 2)) for entry in route) for name, route in wanted.items()}
    stages = StageList(replace(actual, routes=both))
    stages.route("serve the next generation", wanted)
    settle, routes = (stage.actions for stage in stages.all())
    assert settle == (a.Settle("app", 1),) and routes == (a.SetRoutes(wanted),)
    assert stages.actual.routes == wanted
    stages.route("once more", wanted)
    assert len(stages.all()) == 2


def test_a_chain_is_unloaded_before_the_models_that_it_calls() -> None:
    stages = StageList(after(bundle(1, [worker("0/1g@0", ("t0", "a"), ("t1", "a"))])))
    (name,) = stages.actual.workers
    stages.unload("old models", {name: stages.actual.workers[name].models})
    drain, unload = (stage.actions for stage in stages.all())
    assert drain == (a.Drain(name, ("app.t0.a.g1", "app.t1.a.g1")),)
    assert unload == (a.UnloadModels(name, ("app.t1.a.g1", "app.t0.a.g1")),)


def test_workers_on_lost_gpus_do_not_answer() -> None:
    stages = StageList(after(ONE), lost={GpuId("n", 0)})
    assert stages.actual.workers and not stages.answering.workers
