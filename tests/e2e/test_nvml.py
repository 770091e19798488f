"""A deployment on a fake NVML library, which NVML's users and tritonservers take for real GPUs."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import MigInstance, Placement
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from jigsaw_triton.profiles.read import read_profiles, write_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow
from jigsaw_triton.servers.mps import end_processes
from tests.e2e.app import write_application
from tests.e2e.clients import Client, Crowd, expected
from tests.e2e.system import System
from tests.fakes import mps
from tests.fakes.docker import Docker
from tests.fakes.nvml.machine import Machine
from tests.waiting import WAIT_LIMIT_S

pytestmark = pytest.mark.e2e

BOARD = "cpu"
"""Board whose models run on the CPU, since the fake NVML has no CUDA behind it."""
ASKED = ("--gpus", f"1x{BOARD}", "--driver", "nvml", "--demand")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine(tmp_path / "gpus", [BOARD])
    for name, value in machine.env.items():
        monkeypatch.setenv(name, value)
    machine.enter()
    yield machine
    machine.leave()


@pytest.fixture
def system(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    system = System(tmp_path_factory.mktemp("system"))
    yield system
    system.end()


def instances() -> tuple[MigInstance, ...]:
    return NvmlMigDriver("local", {0: CATALOG[BOARD]}).instances()


def test_each_worker_has_its_own_instance_and_others_are_left_alone(
    machine: Machine, system: System, tmp_path: Path
) -> None:
    other = machine.foreign(0, "2g", 0)
    app = write_application(tmp_path / "app")
    status = system.deploy(app, *ASKED, 5)
    ours = {w["uuid"]: Placement(w["start"], w["slice"]) for w in status["workers"]}
    assert {i.uuid: i.placement for i in instances()} == {**ours, other: Placement(0, "2g")}
    for worker in status["workers"]:
        environ = Path(f"/proc/{worker['pid']}/environ").read_bytes().split(b"\0")
        assert f"CUDA_VISIBLE_DEVICES={worker['uuid']}".encode() in environ
    assert all(w["use"]["memory_total_mib"] == 8192 for w in system.status()["workers"])
    assert all(w["use"]["busy"] is not None for w in system.status()["workers"])
    with Client(system, "grpc") as client:
        give_up_at = time.monotonic() + WAIT_LIMIT_S
        while (energy := system.status()["energy"]) is None or energy["joules_per_request"] is None:
            assert client.squares([2, 3]) == expected([2, 3])
            assert time.monotonic() < give_up_at
            # More requests than planned would let the controller plan again.
            time.sleep(0.25)
        assert energy["joules"].keys() == {"local/0"}
        assert energy["watts"] > 0
        # A larger demand adds instances beside the existing ones.
        machine.forget_calls()
        status = system.deploy(app, *ASKED, 60)
        assert ours.keys() < {w["uuid"] for w in status["workers"]}
        assert not [call for call in machine.changes() if "Destroy" in call.name or call.code != 0]
        assert client.squares([4]) == expected([4])
    refused = system.run("deploy", app, "--gpus", f"1x{BOARD}", "--driver", "emulated", "--detach")
    assert refused.code == 4
    assert "to emulated while a deployment runs" in refused.err
    assert system.run("down").code == 0
    assert [i.uuid for i in instances()] == [other]


def test_the_next_controller_adopts_the_instances_of_a_killed_one(
    machine: Machine, system: System, tmp_path: Path
) -> None:
    app = write_application(tmp_path / "app")
    left = {w["uuid"] for w in system.deploy(app, *ASKED, 5)["workers"]}
    system.kill_controller()
    other = machine.foreign(0, "1g", 6)
    status = system.deploy(app, *ASKED, 5)
    assert {w["uuid"] for w in status["workers"]} == left
    assert {i.uuid for i in instances()} == {*left, other}
    assert system.run("down").code == 0
    assert [i.uuid for i in instances()] == [other]


WAITING = """\
apiVersion: jigsaw-triton/v1
kind: TaskGraph
metadata: {name: waiting}
spec:
  slo: {latency_ms: 2000, accuracy: 0.9}
  inputs:
    X: {dtype: FP32, shape: [16]}
  outputs: {Y: only.Y}
  tasks:
    only:
      inputs: {X: inputs.X}
      outputs:
        Y: {dtype: FP32, shape: [16]}
      variants:
        - {name: only, accuracy: 1.0, template: emulated}
"""
"""Graph with a variant that needs no CUDA on any board."""


def test_a_gpu_without_mig_serves_as_one_whole_slice(system: System, machine: Machine, tmp_path: Path) -> None:
    whole = Machine(machine.path, ["A100-80GB"], mig=False)
    app = tmp_path / "app"
    app.mkdir()
    (app / "graph.yaml").write_text(WAITING)
    rows = [
        ProfileRow(ProfileKey("A100-80GB", "only", "only", kind, 1, 1), 5.0, 5.0, 5.0, 200.0, 60.0, "assumed")
        for kind in ("1g", "7g")
    ]
    (app / "profiles.csv").write_text(write_profiles(rows))
    status = system.deploy(app, "--gpus", "1xA100-80GB", "--driver", "nvml", "--demand", 5)
    (worker,) = status["workers"]
    assert (worker["slice"], worker["uuid"][:4]) == ("7g", "GPU-")
    environ = Path(f"/proc/{worker['pid']}/environ").read_bytes().split(b"\0")
    assert f"CUDA_VISIBLE_DEVICES={worker['uuid']}".encode() in environ
    assert system.run("down").code == 0
    assert whole.changes() == []


CLUSTER = """\
apiVersion: jigsaw-triton/v1
kind: Cluster
spec:
  driver: {driver}
  processes: mps
  {more}
  nodes: [{{name: local, gpus: [{{model: cpu}}]}}]
"""


def several(app: Path, instances: int) -> Path:
    """Writes an application that is profiled only with this number of instances. Returns its folder."""
    write_application(app)
    rows = read_profiles(app / "profiles.csv").rows()
    more = [replace(row, key=replace(row.key, instances=instances)) for row in rows]
    (app / "profiles.csv").write_text(write_profiles(more))
    return app


def write_cluster(folder: Path, driver: str, more: str = "") -> Path:
    (folder / "cluster.yaml").write_text(CLUSTER.format(driver=driver, more=more))
    return folder / "cluster.yaml"


def shared(status: dict[str, Any]) -> dict[str, list[int]]:
    """Returns the process ids of the servers on each MIG instance, by UUID."""
    found: dict[str, list[int]] = {}
    for worker in status["workers"]:
        found.setdefault(worker["uuid"], []).append(worker["pid"])
    return found


def test_the_instances_of_a_slice_are_processes_under_mps(machine: Machine, system: System, tmp_path: Path) -> None:
    system.put_on_path(mps.install(tmp_path / "bin"))
    app, cluster = several(tmp_path / "app", 2), write_cluster(tmp_path, "nvml")
    status = system.deploy(app, "--cluster", cluster, "--demand", 5)
    servers = shared(status)
    assert len(servers) == 3 and all(len(pids) == 2 for pids in servers.values())
    assert {i.uuid for i in instances()} == set(servers)
    first = next(iter(servers))
    pipes = {variable(pid, "CUDA_MPS_PIPE_DIRECTORY") for pid in servers[first]}
    assert len(pipes) == 1
    with Client(system, "grpc") as client:
        assert client.squares([2, 3]) == expected([2, 3])
        # A process that started without the daemon would compute without MPS, so all servers of the slice restart.
        after = system.last_event()
        os.kill(int((Path(pipes.pop()) / "nvidia-cuda-mps-control.pid").read_text()), signal.SIGKILL)
        for _ in servers[first]:
            after = system.wait_event("serves again", after=after)
        assert set(shared(system.status())[first]).isdisjoint(servers[first])
        assert client.squares([4]) == expected([4])
    # The next controller adopts the daemons of a killed one, and `down` leaves none of them.
    left = {variable(pid, "CUDA_MPS_PIPE_DIRECTORY") for pids in shared(system.status()).values() for pid in pids}
    before = shared(system.status())
    system.kill_controller()
    assert shared(system.deploy(app, "--cluster", cluster, "--demand", 5)) == before
    daemon = next(iter(left))
    after = system.last_event()
    os.kill(int((Path(daemon) / "nvidia-cuda-mps-control.pid").read_text()), signal.SIGKILL)
    system.wait_event("serves again", after=after)
    assert system.run("down").code == 0
    docker = Docker(tmp_path / "docker", "triton:1")
    system.put_on_path(docker.folder)
    cluster = write_cluster(tmp_path, "nvml", "server: {image: 'triton:1'}")
    again = shared(system.deploy(app, "--cluster", cluster, "--demand", 5))
    assert set(again).isdisjoint(servers)
    assert {i.uuid for i in instances()} == set(again)
    assert len(docker.containers()) == sum(map(len, again.values()))
    with Client(system, "grpc") as client:
        assert client.squares([5]) == expected([5])
    assert system.run("down").code == 0
    assert instances() == () and docker.containers() == []
    assert [end_processes(Path(pipes)) for pipes in left] == [0] * len(left)
    # A process that the daemon does not know computes without MPS, whatever its environment says.
    mps.install(tmp_path / "bin", like="deaf")
    refused = system.run("deploy", app, "--cluster", cluster, "--demand", 5, *system.ports, "--detach")
    assert refused.code == 1
    assert "compute on the slice without MPS" in refused.err
    assert instances() == ()


def variable(pid: int, name: str) -> str:
    """Returns an environment variable of a process."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    (text,) = (v.decode() for v in variables if v.startswith(f"{name}=".encode()))
    return text.partition("=")[2]


def test_emulated_instances_can_change_to_shared_ones_under_load(system: System, tmp_path: Path) -> None:
    app, cluster = several(tmp_path / "app", 2), write_cluster(tmp_path, "emulated")
    text = cluster.read_text()
    cluster.write_text(text.replace("processes: mps", "processes: streams"))
    before = shared(system.deploy(app, "--cluster", cluster, "--demand", 5))
    assert all(len(pids) == 1 for pids in before.values())
    cluster.write_text(text)
    with Crowd(system, 2, pause_s=0.2) as crowd:
        status = system.deploy(app, "--cluster", cluster, "--demand", 5)
        crowd.wait_answers(6)
    crowd.assert_none_failed()
    assert all(len(pids) == 2 for pids in shared(status).values())
    assert any("without a daemon" in sentence for sentence in status["emulated"])
