"""What `deploy` makes of its flags, and what it refuses before anything is touched."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.cli.commands.deploy import _as_it_runs, _changes_processes
from jigsaw_triton.cli.inputs.files import read_wanted
from jigsaw_triton.cli.inputs.request import Request
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.emulated import EmulatedMigDriver
from jigsaw_triton.gpus.model import Cluster, GatewayPorts, Gpu, GpuId, Placement
from jigsaw_triton.planner.domain.problem import Options
from tests.cli.conftest import Run
from tests.fakes.nvml.machine import Machine

PORTS = {"http": 9000, "grpc": 9001, "metrics": 9002, "address": "0.0.0.0"}
STATUS: dict[str, Any] = {
    "graphs": {"hello": {"base_rps": 7.5}, "other": {"base_rps": 1.0}},
    "gateway": {"ports": PORTS},
}
CLUSTER = """\
apiVersion: jigsaw-triton/v1
kind: Cluster
spec:
  driver: emulated
  nodes: [{name: a, gpus: [{model: cpu, count: 2}]}]
  gateway: {http: 9100, grpc: 9101, metrics: 9102}
"""


def test_a_request_is_the_same_on_the_other_side() -> None:
    request = Request(("/app",), gpus="2xcpu", demand=("hello=3",), target="bls", http=9000, share=True)
    assert Request.of_json(request.to_json()) == request


@pytest.mark.parametrize("data", [{}, {"graphs": [], "demand": [], "colour": "red"}, {"graphs": [], "demand": None}])
def test_a_request_of_another_release_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="different releases"):
        Request.of_json(data)


def test_a_request_is_read_with_its_target_and_ports(app: Path, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    request = Request((str(app),), cluster=str(tmp_path / "cluster.yaml"), demand=("3",), target="bls", grpc=9999)
    wanted = request.read(Output(), read_wanted)
    assert wanted.graphs["hello"].target == "bls"
    assert wanted.demand_rps == {"hello": 3.0}
    assert wanted.cluster.gateway == GatewayPorts(http=9100, grpc=9999, metrics=9102)
    plain = Request((str(app),), cluster=str(tmp_path / "cluster.yaml")).read(Output(), read_wanted, default_rps=2.0)
    assert plain.graphs["hello"].target == "auto"
    assert plain.demand_rps == {"hello": 2.0}


def test_what_shares_is_said_in_the_request(app: Path) -> None:
    request = Request((str(app),), gpus="1xcpu", share=True)
    assert request.read(Output(), read_wanted).share
    assert not replace(request, share=False).read(Output(), read_wanted).share


def test_what_changes_cost_is_said_in_the_request(app: Path) -> None:
    request = Request((str(app),), gpus="1xcpu", change_price=0.5)
    assert request.read(Output(), read_wanted).change_price == 0.5


def test_how_long_tasks_are_planned_to_take_is_said_in_the_request(app: Path) -> None:
    request = Request((str(app),), gpus="1xcpu", latency_model="2p95")
    assert Request.of_json(request.to_json()).read(Output(), read_wanted).options == Options(latency_model="2p95")
    assert Request((str(app),), gpus="1xcpu").read(Output(), read_wanted).options == Options(latency_model="queue")


def test_an_update_keeps_the_demand_and_the_ports_that_it_does_not_name(app: Path) -> None:
    kept = _as_it_runs(Request((str(app),), gpus="2xcpu", grpc=9999), STATUS)
    assert kept.demand == ("hello=7.5",)
    assert (kept.http, kept.grpc, kept.metrics, kept.address) == (9000, 9999, 9002, "0.0.0.0")


def test_an_update_with_a_cluster_file_has_the_ports_that_are_in_it() -> None:
    changed = _as_it_runs(Request(("/app",), cluster="/cluster.yaml", demand=("hello=9",)), STATUS)
    assert changed.demand == ("hello=9",)
    assert changed.http is None


def test_an_update_of_what_has_no_gateway_yet_keeps_nothing(app: Path) -> None:
    request = Request((str(app),), gpus="2xcpu")
    assert _as_it_runs(request, {"graphs": {}, "gateway": {"state": "absent"}}) == request


def test_servers_that_become_other_processes_are_noticed() -> None:
    streams, mps = Cluster(()), Cluster((), processes="mps")
    steps = {"slice": None, "process": 0}
    alone, first = ({"workers": [{"slice": "1g", "process": process}, steps]} for process in (0, 1))
    assert _changes_processes(alone, mps) and _changes_processes(first, streams)
    assert not _changes_processes(alone, streams) and not _changes_processes(first, mps)
    assert not _changes_processes({"workers": []}, mps)


def test_what_others_have_by_then_is_planned_around_before_anything_is_touched(
    run: Run, app: Path, tmp_path: Path
) -> None:
    gpu, state = Gpu(GpuId("local", 0), CATALOG["cpu"]), tmp_path / "state"
    other = EmulatedMigDriver(state / "mig.json", [gpu])
    there = other.create(gpu.id, Placement(0, "7g"))
    result = run("deploy", app, "--gpus", "1xcpu", "--demand", "5", "--state", state, "--detach")
    assert result.exit_code == 3
    assert "no room for as many replicas as the tasks need" in result.stderr
    assert other.instances() == (there,)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("-", "--gpus", "2xcpu"), 2, "standard input"),
        (("APP",), 2, "--gpus"),
        (("APP", "--gpus", "2xcpu", "--demand", "much"), 2, "'much' is not a number"),
        (("APP", "--gpus", "2xcpu", "--demand", "900000"), 3, "the demand exceeds the cluster"),
        (("APP", "--gpus", "2xcpu", "--http", "99999"), 2, "99999"),
        (("nowhere", "--gpus", "2xcpu"), 2, "nowhere"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_touched(
    run: Run, app: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, told: str
) -> None:
    given = [app if argument == "APP" else argument for argument in arguments]
    result = run("deploy", *given, "--state", tmp_path / "state", "--detach")
    assert result.exit_code == code
    assert told in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "state").exists()


def test_a_gpu_that_is_uncut_beside_others_is_told_by_plan_and_deploy(run: Run, app: Path, tmp_path: Path) -> None:
    profiles = app / "profiles.csv"
    profiles.write_text(profiles.read_text().replace("cpu,", "H100-80GB,"))
    machine = Machine(tmp_path / "gpus", ["H100-80GB", "H100-80GB"], mig=False)
    machine.enter()
    try:
        assert run("mig", "enable", "1").exit_code == 0
        asked = (app, "--gpus", "2xH100-80GB", "--driver", "nvml", "--demand", "900000")
        told = "GPU local/0 is one whole slice: MIG is off, but on for others of its model"
        for command in (("plan",), ("deploy", "--state", tmp_path / "state")):
            result = run(*command, *asked)
            assert result.exit_code == 3
            assert f"warning: {told}" in result.stderr
        # GPUs of another machine cannot be looked at.
        assert "whole slice" not in run("plan", app, "--gpus", "3xH100-80GB", *asked[3:]).stderr
    finally:
        machine.leave()
