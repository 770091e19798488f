import json
from dataclasses import replace
from typing import Any

import pytest

from jigsaw_triton.console.view import view
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.gpus.model import GpuId, Placement
from tests.console.conftest import Desk
from tests.controller.worlds import bundle, profiled, worker
from tests.fakes.graphs import conditional, fan_out

FIRST, SECOND = worker("0/1g@0", ("t0", "a")), worker("0/3g@4", ("t1", "b"))
ONE = profiled(bundle(1, [FIRST, SECOND]))
ACTUAL = {w.name: w for w in (FIRST, SECOND)}


def serving() -> State:
    state = State(phase=Phase.READY, wanted=ONE.wanted, running=ONE)
    return replace(state, actual=replace(state.actual, gateway=True, workers=ACTUAL))


def shown(desk: Desk, state: State) -> dict[str, Any]:
    desk.controller.state = state
    found = view(desk.controller, desk.fleet)
    json.dumps(found)
    return found


def test_without_a_deployment_the_view_is_empty(desk: Desk) -> None:
    found = shown(desk, State())
    assert found["deployment"]["state"] == "idle"
    assert (found["graphs"], found["gpus"], found["workers"], found["change"]) == ({}, {}, {}, None)


def test_a_graph_has_its_tasks_edges_and_budgets(desk: Desk) -> None:
    graph = shown(desk, serving())["graphs"]["app"]
    assert (graph["slo_latency_ms"], graph["slo_accuracy"]) == (1000.0, 0.9)
    assert list(graph["tasks"]) == graph["critical_path"] == ["t0", "t1"]
    first = graph["tasks"]["t0"]
    assert not first["step"]
    assert first["rate_rps"] == ONE.plan.graphs["app"].tasks["t0"].rate_rps
    assert first["variants"]["a"] == {"accuracy": 1.0, "share_planned": 1.0}
    assert first["variants"]["b"]["share_planned"] == 0.0
    assert [(edge["from"], edge["to"]) for edge in graph["edges"]] == [
        ("inputs", "t0"),
        ("t0", "t1"),
        ("t1", "graph outputs"),
    ]
    assert graph["edges"][1]["fan_out_planned"] == pytest.approx(1.0)


def test_nodes_and_the_standby_gateway_are_shown(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    standby = {"node": "n", "state": "ready", "in_line": True, "since": 7.0, "failure": "", "http": "", "grpc": "",
               "metrics": "", "pid": 1}  # fmt: skip
    monkeypatch.setattr(desk.fleet.replication, "status", lambda: standby)
    cluster = replace(ONE.wanted.cluster, topology={"n": {"rack": "r1"}})
    state = replace(serving(), wanted=replace(ONE.wanted, cluster=cluster), cordoned=frozenset({"n"}))
    found = shown(desk, state)
    assert found["standby_gateway"] == standby
    node = found["nodes"]["n"]
    assert (node["state"], node["cordoned"], node["topology"]) == ("cordoned", True, {"rack": "r1"})
    assert node["workers"] == [FIRST.name, SECOND.name]


def test_a_board_has_the_instances_of_workers_and_of_others(desk: Desk) -> None:
    state = serving()
    cluster = ONE.wanted.cluster
    gpus = (cluster.gpus[0], replace(cluster.gpus[1], foreign=(Placement(0, "2g"),)))
    wanted = replace(ONE.wanted, cluster=replace(cluster, gpus=gpus))
    found = shown(desk, replace(state, wanted=wanted, lost=frozenset({GpuId("n", 1)})))["gpus"]
    assert list(found) == ["n/0", "n/1"]
    first, second = found["n/0"], found["n/1"]
    assert (first["model"], first["size"], first["memory"], first["lost"]) == ("A100-80GB", 7, 8, False)
    assert first["slices"] == [
        {"slice": "1g", "start": 0, "size": 1, "worker": "n-0-1g-0", "foreign": False},
        {"slice": "3g", "start": 4, "size": 4, "worker": "n-0-3g-4", "foreign": False},
    ]
    assert second["lost"]
    assert second["slices"] == [{"slice": "2g", "start": 0, "size": 2, "worker": None, "foreign": True}]


def test_a_worker_has_the_figures_of_its_profile(desk: Desk) -> None:
    found = shown(desk, serving())["workers"]["n-0-1g-0"]
    assert (found["state"], found["gpu"], found["slice"], found["start"]) == ("ready", "n/0", "1g", 0)
    (model,) = found["models"]
    assert (model["task"], model["variant"], model["instances"], model["batch"]) == ("t0", "a", 1, 4)
    assert model["planned"]["throughput_rps"] == 12.5
    assert model["planned"]["memory_mib"] == 900.0


def test_a_change_shows_its_stages_and_what_is_under_way(desk: Desk) -> None:
    third = worker("1/2g@0", ("t1", "a"), generation=2)
    two = replace(ONE, bundle=bundle(2, [FIRST, third]))
    stages = (Stage("route to the new generation", (), commits=True), Stage("remove", (a.Retire(SECOND),)))
    state = replace(
        serving(),
        phase=Phase.CHANGING,
        pending=two,
        stage=Stage("add", (a.BringUp(third),), step=1, steps=2),
        stages=stages,
        inflight={4: a.BringUp(third), 5: a.Drain(SECOND.name, ()), 6: a.SetRoutes({}), 7: a.Settle("app", 1)},
    )
    found = shown(desk, state)
    change = found["change"]
    assert (change["from"], change["to"], change["at"]) == (1, 2, 0)
    assert change["stages"] == ["step 1 of 2: add", "route to the new generation", "remove"]
    assert change["moves"] == [
        {"gpu": "n/1", "kind": "create", "worker": "n-1-2g-0"},
        {"gpu": "n/0", "kind": "drain", "worker": "n-0-3g-4"},
        {"gpu": None, "kind": "route", "worker": None},
        {"gpu": None, "kind": "route", "worker": None},
    ]
    states = {name: w["state"] for name, w in found["workers"].items()}
    assert states == {"n-0-1g-0": "ready", "n-0-3g-4": "draining", "n-1-2g-0": "loading"}
    assert found["gpus"]["n/1"]["slices"][0]["worker"] == "n-1-2g-0"


def test_fan_out_and_conditions_are_on_the_edges(desk: Desk) -> None:
    for graph in (fan_out(), conditional()):
        plan = replace(ONE.plan.graphs["app"], tasks={})
        tasks = {name: ONE.plan.graphs["app"].tasks["t0"] for name in graph.tasks}
        wanted = replace(ONE.wanted, graphs={graph.name: graph}, demand_rps={graph.name: 1.0}, profiles={})
        made = replace(ONE, wanted=wanted, plan=replace(ONE.plan, graphs={graph.name: replace(plan, tasks=tasks)}))
        state = State(phase=Phase.CHANGING, wanted=wanted, pending=made)
        edges = shown(desk, state)["graphs"][graph.name]["edges"]
        assert any(edge["for_each"] or edge["when"] for edge in edges)
        assert all(edge["tensors"] for edge in edges)
