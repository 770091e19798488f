"""Service of a deployment: graphs that are not served, and servers that are missing."""

from dataclasses import replace

import pytest

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.service import available_rps, troubles, unserved
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.gpus.model import GpuId
from tests.controller.worlds import World, bundle, chained, wanted, worker

ONE = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t1", "a")), worker("0/1g@2", ("t1", "a"))])


def deployed(world: World) -> World:
    world.send(e.DeployRequested(wanted()))
    return world


def dead(*servers: str) -> State:
    """The state after servers have ended and before they serve again."""
    world = World({1: ONE}, hold=lambda action: isinstance(action, a.RestartWorker | a.RestartGateway))
    deployed(world)
    for server in servers:
        world.send(e.GatewayExited("signal 9") if server == "gateway" else e.WorkerExited(server, "signal 9"))
    return world.state


@pytest.mark.parametrize(
    ("servers", "reasons"),
    [
        ((), ()),
        (("gateway",), ("the gateway does not serve",)),
        (("n-0-1g-0",), ("task t0 of graph app has no worker",)),
        (("n-0-1g-1",), ()),
        (("n-0-1g-1", "n-0-1g-2"), ("task t1 of graph app has no worker",)),
    ],
)
def test_a_graph_is_served_by_the_gateway_and_a_worker_for_each_task(
    servers: tuple[str, ...], reasons: tuple[str, ...]
) -> None:
    state = dead(*servers)
    assert unserved(state) == reasons
    assert [sentence.partition(" is restarting: ")[0] for sentence in troubles(state)] == list(servers)


@pytest.mark.parametrize(
    ("server", "reason"),
    [("gateway", "the gateway does not serve"), ("n-0-1g-0", "task t0 of graph app has no worker")],
)
def test_a_server_that_does_not_answer_serves_nothing(server: str, reason: str) -> None:
    world = deployed(World({1: ONE}))
    world.send(e.Stalled(server, 5.0))
    assert unserved(world.state) == (reason,)
    assert troubles(world.state) == (f"{server} does not answer",)


@pytest.mark.parametrize(
    ("lost", "reasons", "share"),
    [
        ((), (), 1.0),
        ((1,), (), 0.5),
        ((1, 2), ("task t1 of graph app has no worker",), 0.0),
        ((0, 1, 2), ("task t0 of graph app has no worker", "task t1 of graph app has no worker"), 0.0),
    ],
)
def test_workers_of_lost_gpus_serve_nothing_and_the_others_carry_their_share(
    lost: tuple[int, ...], reasons: tuple[str, ...], share: float
) -> None:
    spread = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("1/1g@0", ("t1", "a")), worker("2/1g@0", ("t1", "a"))])
    state = deployed(World({1: spread})).state
    planned = available_rps(state)["app"]
    assert state.running is not None and planned == state.running.plan.graphs["app"].capacity_rps > 0
    state = replace(state, lost=frozenset(GpuId("n", index) for index in lost))
    assert unserved(state) == reasons
    assert available_rps(state) == {"app": share * planned}


def test_a_worker_carries_the_share_of_its_planned_throughput() -> None:
    state = deployed(World({1: ONE})).state
    assert state.running is not None
    planned = available_rps(state)["app"]
    graph = state.running.bundle.graphs["app"]
    first, second = graph.tasks[1].route
    fast, slow = replace(first, service_ms={"4": 10.0}), replace(second, service_ms={"4": 30.0})
    tasks = (graph.tasks[0], replace(graph.tasks[1], route=(fast, slow)))
    made = replace(state.running.bundle, graphs={"app": replace(graph, tasks=tasks)})
    state = replace(state, running=replace(state.running, bundle=made), stalled=frozenset({slow.worker}))
    assert available_rps(state)["app"] == pytest.approx(0.75 * planned)


def test_nothing_is_carried_without_the_gateway_or_a_generation() -> None:
    assert available_rps(dead("gateway")) == {"app": 0.0}
    assert available_rps(State()) == {}


def test_a_server_that_still_loads_its_models_serves_nothing() -> None:
    world = deployed(World({1: ONE}))
    world.send(e.Loading("n-0-1g-0"))
    assert unserved(world.state) == ("task t0 of graph app has no worker",)
    world.send(e.Answered("n-0-1g-0"))
    assert unserved(world.state) == troubles(world.state) == ()


def test_nothing_is_served_before_the_first_generation() -> None:
    world = deployed(World({1: ONE}, hold=lambda action: isinstance(action, a.BringUp)))
    assert unserved(world.state) == ("no generation serves yet",)
    assert troubles(world.state) == ()


def test_a_graph_without_its_front_is_not_served() -> None:
    state = deployed(World({1: ONE})).state
    without = replace(state, actual=replace(state.actual, fronts={}))
    assert unserved(without) == ("graph app is not loaded at the gateway",)


def test_a_graph_is_served_by_its_chains_or_by_their_tasks() -> None:
    whole = chained(bundle(1, [worker("0/1g@0", ("t0", "a"), ("t1", "a"))]))
    state = deployed(World({1: whole})).state
    forms = [{task.name: task.route for task in form.tasks} for form in whole.graphs["app"].forms]
    assert len(forms) == 2
    for routes in forms:
        assert unserved(replace(state, actual=replace(state.actual, routes=routes))) == ()
    without = replace(state, actual=replace(state.actual, routes={}))
    assert unserved(without) == ("task t0~t1 of graph app has no worker",)


def test_workers_that_a_failed_rollback_did_not_restore_are_missing() -> None:
    state = deployed(World({1: ONE})).state
    workers = {name: w for name, w in state.actual.workers.items() if name != "n-0-1g-2"}
    assert troubles(replace(state, actual=replace(state.actual, workers=workers))) == ("n-0-1g-2 is missing",)
