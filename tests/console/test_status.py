import math
from dataclasses import replace

import pytest

from jigsaw_triton.console.emulated import EMULATED_CPU, EMULATED_MIG, EMULATED_MPS, EMULATED_VARIANTS
from jigsaw_triton.console.status import emulated, snapshot
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.generation import Canary
from jigsaw_triton.controller.core.request_counts import RequestCounts
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Cluster, DeviceUse, Gpu, GpuId
from tests.console.conftest import Desk
from tests.controller.disks import fill_disk, free_disk
from tests.controller.worlds import World, bundle, generation, wanted, worker

ONE = bundle(1, [worker("0/1g@0", ("t0", "v0")), worker("0/1g@1", ("t1", "v0"))])


def served() -> State:
    world = World({1: ONE})
    world.send(e.DeployRequested(wanted()))
    return world.state


def test_the_status_without_a_deployment_is_empty(desk: Desk) -> None:
    status = snapshot(desk.controller, desk.fleet)
    assert status["state"] == "idle"
    assert status["generation"] == 0
    assert status["gateway"] == {"state": "absent"}
    assert status["graphs"] == {}
    assert status["workers"] == []
    assert status["plan"] is None
    assert status["driver"] == ""
    workers = {"version": "2.51.0", "image": None}
    assert status["server"] == {"version": "2.51.0", "origin": "package", "workers": workers}


def test_the_status_describes_the_running_generation(desk: Desk) -> None:
    desk.controller.state = served()
    status = snapshot(desk.controller, desk.fleet)
    assert status["state"] == "ready"
    assert status["generation"] == 1
    assert status["gateway"]["ports"] == {"http": 8000, "grpc": 8001, "metrics": 8002, "address": "127.0.0.1"}
    assert status["gateway"]["http"] == "127.0.0.1:8000"
    assert status["gateway"]["metrics"] == "http://127.0.0.1:8002/metrics"
    graph = status["graphs"]["app"]
    assert (graph["target"], graph["demand_rps"], graph["base_rps"]) == ("graph", 10.0, 10.0)
    assert (graph["latency_ms"], graph["slo_latency_ms"], graph["percentile"]) == (100.0, 1000.0, 99.0)
    assert graph["available_rps"] == graph["capacity_rps"]
    assert graph["arrivals_rps"] is None
    first, second = status["workers"]
    assert (first["name"], first["node"], first["gpu"], first["slice"], first["start"]) == ("n-0-1g-0", "n", 0, "1g", 0)
    assert (first["model"], first["state"], first["restarts"]) == ("A100-80GB", "ready", 0)
    assert second["models"] == [
        {
            "name": "app.t1.v0.g1",
            "graph": "app",
            "task": "t1",
            "variant": "v0",
            "instances": 1,
            "batch": 4,
            "standby": False,
        }
    ]
    assert status["plan"]["slices_used"] == 2


def test_the_status_shows_the_utilisation_of_instances_where_it_is_known(desk: Desk) -> None:
    desk.controller.state = served()
    first, second = snapshot(desk.controller, desk.fleet, {"n-0-1g-0": DeviceUse(512, 9728, 0.25)})["workers"]
    assert first["use"] == {"memory_mib": 512, "memory_total_mib": 9728, "busy": 0.25}
    assert second["use"] is None


def test_the_status_shows_restarting_servers_and_why(desk: Desk) -> None:
    world = World({1: ONE}, hold=lambda action: isinstance(action, a.RestartWorker | a.RestartGateway))
    world.send(e.DeployRequested(wanted()))
    world.send(e.WorkerExited("n-0-1g-0", "signal 9"))
    world.send(e.GatewayExited("signal 9"))
    desk.controller.state = world.state
    status = snapshot(desk.controller, desk.fleet)
    assert [w["state"] for w in status["workers"]] == ["restarting", "ready"]
    assert [w["restarts"] for w in status["workers"]] == [1, 0]
    assert status["gateway"]["state"] == "restarting"
    assert status["degraded"] and not status["serving"]
    assert status["reasons"] == [
        "the gateway does not serve",
        "n-0-1g-0 is restarting: worker n-0-1g-0 ended unexpectedly (signal 9)",
        "gateway is restarting: the gateway ended unexpectedly (signal 9)",
    ]
    world.end()
    desk.controller.state = world.state
    status = snapshot(desk.controller, desk.fleet)
    assert (status["serving"], status["degraded"], status["reasons"]) == (True, False, [])


def test_a_deployment_whose_edge_has_ended_does_not_serve(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.controller.state = served()
    for state, serving in (("ready", True), ("restarting", False)):
        monkeypatch.setattr(desk.fleet.edge, "status", lambda state=state: {"state": state})
        status = snapshot(desk.controller, desk.fleet)
        assert (status["serving"], status["reasons"]) == (serving, [] if serving else ["the edge does not serve"])


def test_the_status_shows_a_canary(desk: Desk) -> None:
    beside = bundle(2, [worker("0/1g@0", ("t0", "v1"), generation=2), worker("0/1g@1", ("t1", "v0"))])
    world = World({1: ONE, 2: beside})
    world.send(e.DeployRequested(wanted()))
    assert world.state.watch is None
    world.send(e.DeployRequested(wanted(20.0), Canary(0.05, 60.0)))
    requests = {
        ("app", 1): RequestCounts(95.0, 1.0, {0.02: 93.0, math.inf: 94.0}),
        ("app", 2): RequestCounts(5.0, 0.0, {math.inf: 5.0}),
    }
    world.send(e.Tick(world.state.now_s + 1.0, {}, requests=requests))
    desk.controller.state = world.state
    canary = snapshot(desk.controller, desk.fleet)["canary"]
    assert canary == {
        "share": 0.05,
        "seconds": 60.0,
        "elapsed_s": 1.0,
        "generation": 2,
        "running": 1,
        "verdict": None,
        "graphs": {
            "app": {
                "new": {"requests": 5.0, "failed": 0.0, "p99_ms": None},
                "running": {"requests": 95.0, "failed": 1.0, "p99_ms": None},
            }
        },
    }
    world.send(e.CanaryEndRequested())
    desk.controller.state = world.state
    canary = snapshot(desk.controller, desk.fleet)["canary"]
    assert (canary["elapsed_s"], canary["verdict"]) == (None, "rolled back: requested by the user")


def test_the_status_shows_a_journal_that_cannot_be_written(desk: Desk) -> None:
    desk.controller.state = served()
    fill_disk(desk.journal)
    status = snapshot(desk.controller, desk.fleet)
    assert status["serving"] and status["degraded"]
    assert status["reasons"] == ["journal: cannot be written: No space left on device"]
    free_disk(desk.journal)
    desk.journal.sync()
    assert not snapshot(desk.controller, desk.fleet)["degraded"]


def test_the_status_shows_the_current_stage_and_the_last_error(desk: Desk) -> None:
    world = World({1: ONE, 2: "the demand exceeds the cluster"}, hold=lambda x: isinstance(x, a.BringUp))
    world.send(e.DeployRequested(wanted()))
    desk.controller.state = world.state
    status = snapshot(desk.controller, desk.fleet)
    assert (status["state"], status["doing"]) == ("changing", "step 1 of 2: start workers")
    assert status["generation"] == 0
    assert status["emulated"] == [EMULATED_MIG, EMULATED_VARIANTS]
    world.end()
    world.send(e.DeployRequested(wanted(1e6)))
    desk.controller.state = world.state
    status = snapshot(desk.controller, desk.fleet)
    assert (status["state"], status["doing"], status["generation"]) == ("ready", "", 1)
    assert (status["error"], status["error_code"]) == ("the demand exceeds the cluster", 3)


@pytest.mark.parametrize(
    ("driver", "board", "expected"),
    [
        ("emulated", "A100-80GB", (EMULATED_MIG, EMULATED_VARIANTS)),
        ("emulated", "cpu", (EMULATED_MIG, EMULATED_CPU, EMULATED_VARIANTS)),
        ("nvml", "A100-80GB", (EMULATED_VARIANTS,)),
    ],
)
def test_the_status_lists_what_is_emulated(driver: str, board: str, expected: tuple[str, ...]) -> None:
    running = generation(ONE)
    cluster = Cluster((Gpu(GpuId("n", 0), CATALOG[board]),), driver="nvml" if driver == "nvml" else "emulated")
    assert emulated(replace(running, wanted=replace(running.wanted, cluster=cluster))) == expected
    assert emulated(None) == ()


def test_the_status_says_that_emulated_mps_has_no_daemon() -> None:
    running = generation(bundle(1, [worker("0/1g@0", ("t0", "a"))]))
    cluster = replace(running.wanted.cluster, processes="mps")
    assert EMULATED_MPS in emulated(replace(running, wanted=replace(running.wanted, cluster=cluster)))
    real = replace(cluster, driver="nvml")
    assert EMULATED_MPS not in emulated(replace(running, wanted=replace(running.wanted, cluster=real)))
