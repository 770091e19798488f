"""A deployment on real GPUs, as far as NVML and tritonservers are concerned: on the stand-in for NVIDIA's library."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import MigInstance, Placement
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from jigsaw_triton.profiles.read import write_profiles
from jigsaw_triton.profiles.table import ProfileKey, ProfileRow
from tests.e2e.app import write_application
from tests.e2e.clients import Client, expected
from tests.e2e.system import System
from tests.fakes.nvml.machine import Machine

pytestmark = pytest.mark.e2e

BOARD = "cpu"
"""On which models run on the processor, as they must: there is no CUDA behind the stand-in."""
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


def test_workers_run_on_instances_of_their_own_and_others_are_left_alone(
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
        assert client.squares([2, 3]) == expected([2, 3])
        # More of the same GPU: what is there stays, what comes is made beside it.
        machine.forget_calls()
        status = system.deploy(app, *ASKED, 60)
        assert ours.keys() < {w["uuid"] for w in status["workers"]}
        assert not [call for call in machine.changes() if "Destroy" in call.name or call.code != 0]
        assert client.squares([4]) == expected([4])
    refused = system.run("deploy", app, "--gpus", f"1x{BOARD}", "--driver", "emulated", "--detach")
    assert refused.code == 4
    assert "cannot become emulated under what runs" in refused.err
    assert system.run("down").code == 0
    assert [i.uuid for i in instances()] == [other]


def test_what_a_controller_that_was_killed_left_is_ended_by_the_next(
    machine: Machine, system: System, tmp_path: Path
) -> None:
    app = write_application(tmp_path / "app")
    left = {w["uuid"] for w in system.deploy(app, *ASKED, 5)["workers"]}
    os.kill(system.controller_pid(), signal.SIGKILL)
    other = machine.foreign(0, "1g", 6)
    status = system.deploy(app, *ASKED, 5)
    now = {w["uuid"] for w in status["workers"]}
    assert left.isdisjoint(now)
    assert {i.uuid for i in instances()} == {*now, other}
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
"""Of a variant that needs no CUDA on any board."""


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
