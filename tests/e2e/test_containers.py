"""Servers that run from a container image, with a fake docker."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.app import write_application
from tests.e2e.clients import PROTOCOLS, Client, expected
from tests.e2e.system import System, free_ports
from tests.fakes.docker import Docker

pytestmark = pytest.mark.e2e

CLUSTER = """\
apiVersion: jigsaw-triton/v1
kind: Cluster
spec:
  driver: emulated
  server: {{image: "{image}"}}
  nodes: [{{name: local, gpus: [{{model: cpu}}]}}]
"""


@pytest.fixture
def docker(system: System, tmp_path: Path) -> Iterator[Docker]:
    docker = Docker(tmp_path / "docker", "triton:1", "triton:2")
    system.put_on_path(docker.folder)
    yield docker
    system.end()
    assert docker.containers() == []


def write_cluster(folder: Path, image: str) -> Path:
    (folder / "cluster.yaml").write_text(CLUSTER.format(image=image))
    return folder / "cluster.yaml"


def test_the_gateway_runs_from_an_image_behind_the_edge(docker: Docker, system: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app")
    text = (
        CLUSTER.replace("  server: ", "  gateway: ") + f"  edge: {{{{kind: haproxy, metrics: {free_ports(1)[0]}}}}}\n"
    )
    (tmp_path / "cluster.yaml").write_text(text.format(image="triton:2"))
    asked = (app, "--cluster", tmp_path / "cluster.yaml", "--demand", 5)
    would = system.run("deploy", *asked, *system.ports, "--dry-run", "-o", "json").json
    before = system.deploy(*asked)
    commands = {server["name"]: " ".join(server["argv"][1:]) for server in would["servers"]}
    assert list(map(words, docker.runs())) == [words(commands["gateway"])]
    assert commands["edge"].endswith("/edge/haproxy.cfg")
    last = system.last_event()
    os.kill(before["gateway"]["pid"], signal.SIGKILL)
    for protocol in PROTOCOLS:
        with Client(system, protocol) as client:
            assert client.squares([3]) == expected([3])
    system.wait_event("gateway serves again", after=last)


def pids(status: dict[str, Any]) -> dict[str, int]:
    return {worker["name"]: worker["pid"] for worker in status["workers"]}


def words(command: str) -> list[str]:
    """Splits a command into words, with UUIDs replaced, which are not known in advance."""
    return re.sub(r"MIG-[\w-]+", "...", command).split()


def test_workers_run_from_an_image_and_leave_no_containers(docker: Docker, system: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app")
    asked = (app, "--cluster", write_cluster(tmp_path, "triton:1"), "--demand", 5)
    would = system.run("deploy", *asked, *system.ports, "--dry-run", "-o", "json").json
    assert docker.containers() == []
    status = system.deploy(*asked)
    commands = [" ".join(server["argv"][1:]) for server in would["servers"] if server["name"] != "gateway"]
    assert sorted(map(words, docker.runs())) == sorted(map(words, commands))
    assert status["server"]["workers"] == {"version": "2.51.0", "image": "triton:1"}
    assert len(docker.containers()) == len(status["workers"])
    with Client(system, "grpc") as client:
        assert client.squares([2, 3]) == expected([2, 3])
        before = pids(system.status())
        name, pid = next(iter(before.items()))
        after = system.last_event()
        os.kill(pid, signal.SIGKILL)
        system.wait_event(f"{name} serves again", after=after)
        assert pids(system.status())[name] != pid
        assert client.squares([4]) == expected([4])
    moved = (app, "--cluster", write_cluster(tmp_path, "triton:2"), "--demand", 5)
    refused = system.run("deploy", *moved, *system.ports, "--detach")
    assert refused.code == 4
    assert "cannot change from triton:1 to triton:2 while a deployment runs" in refused.err
    # The next controller adopts the containers of a killed one.
    before = pids(system.status())
    system.kill_controller()
    assert system.deploy(app, "--cluster", write_cluster(tmp_path, "triton:1"), "--demand", 5)
    assert pids(system.status()) == before
    assert system.run("down").code == 0
    assert docker.containers() == []
    write_cluster(tmp_path, "triton:2")
    again = system.deploy(*moved)
    assert len(docker.containers()) == len(again["workers"])
    assert again["server"]["workers"]["image"] == "triton:2"


def test_a_missing_image_is_reported_before_anything_changes(docker: Docker, system: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app")
    asked = (app, "--cluster", write_cluster(tmp_path, "missing:1"), "--demand", 5)
    refused = system.run("deploy", *asked, *system.ports, "--detach")
    assert refused.code == 2
    assert "missing:1: the image cannot be pulled" in refused.err
    assert system.orphans() == []
