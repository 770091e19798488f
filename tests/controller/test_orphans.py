import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jigsaw_triton.controller.journal import Journal, ServerRecord
from jigsaw_triton.controller.orphans import DRIVER_FACT, end_orphans, note_runtime
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.emulated import EmulatedMigDriver
from jigsaw_triton.gpus.model import Gpu, GpuId, Placement
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from jigsaw_triton.servers.image import Container, Runtime, end_container
from jigsaw_triton.servers.os_process import start_time
from jigsaw_triton.servers.process import group_members
from tests.fakes.docker import Docker
from tests.fakes.nvml.machine import Machine

GPU = GpuId("n", 0)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite")
    yield journal
    journal.close()


@pytest.fixture
def driver(tmp_path: Path) -> EmulatedMigDriver:
    return EmulatedMigDriver(tmp_path / "mig.json", [Gpu(GPU, CATALOG["A100-80GB"])], holders_of=lambda _: ())


def test_instances_are_destroyed_through_the_driver_that_created_them(tmp_path: Path, journal: Journal) -> None:
    machine = Machine(tmp_path / "gpus", ["A100-80GB"])
    machine.enter()
    try:
        driver = NvmlMigDriver("n", {0: CATALOG["A100-80GB"]})
        other = driver.create(GPU, Placement(0, "3g"))
        journal.keep_instance(driver.create(GPU, Placement(4, "3g")))
        journal.keep_fact(DRIVER_FACT, "nvml")
        assert end_orphans(journal, tmp_path) == 1
        assert driver.instances() == (other,)
        assert any(kind == "nvml" for (kind,) in journal._db.execute("SELECT kind FROM actions"))
    finally:
        machine.leave()


def test_our_instances_are_destroyed_and_others_left(
    tmp_path: Path, journal: Journal, driver: EmulatedMigDriver
) -> None:
    for start in (0, 1):
        journal.keep_instance(driver.create(GPU, Placement(start, "1g")))
    other = driver.create(GPU, Placement(2, "1g"))
    driver.destroy(journal.instances()[0].uuid)
    assert end_orphans(journal, tmp_path) == 1
    assert driver.instances() == (other,)
    assert journal.instances() == ()


def test_servers_are_killed_with_their_process_group_and_shared_memory(tmp_path: Path, journal: Journal) -> None:
    prefix = f"jigsaw-test-{os.getpid()}-"
    region = Path("/dev/shm") / f"{prefix}1"
    region.touch()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as process:
        journal.keep_server(ServerRecord("gateway", process.pid, start_time(process.pid) or 0, prefix))
        assert end_orphans(journal, tmp_path) == 1
        assert process.wait(timeout=10) == -9
    assert not region.exists()
    assert journal.servers() == ()


def test_stubs_that_outlive_their_server_are_killed(tmp_path: Path, journal: Journal) -> None:
    prefix = f"jigsaw-test-{os.getpid()}-"
    # The leader leaves two processes in its group. Only one has the server's prefix on its command line.
    script = (
        "import subprocess, sys; wait = 'import sys; sys.stdin.read()'; "
        "children = [subprocess.Popen([sys.executable, '-c', wait, *more]) for more in ([sys.argv[1]], [])]; "
        "print(*(child.pid for child in children), flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, prefix],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as leader:
        assert leader.stdin is not None and leader.stdout is not None
        stub, other = (int(text) for text in leader.stdout.readline().split())
        leader.wait(timeout=10)
        journal.keep_server(ServerRecord("gateway", leader.pid, 1, prefix))
        assert end_orphans(journal, tmp_path) == 1
        assert group_members(leader.pid) == [other]
        assert stub != other
        leader.stdin.close()


def test_a_process_that_has_reused_the_pid_of_a_server_is_left_alone(tmp_path: Path, journal: Journal) -> None:
    journal.keep_server(ServerRecord("gateway", os.getpid(), 1, "jigsaw-test-nobodys-"))
    assert end_orphans(journal, tmp_path) == 0
    assert journal.servers() == ()


def test_an_mps_daemon_is_killed_before_its_instance_is_destroyed(tmp_path: Path, journal: Journal) -> None:
    instances = EmulatedMigDriver(tmp_path / "mig.json", [Gpu(GPU, CATALOG["A100-80GB"])])
    instance = instances.create(GPU, Placement(0, "1g"))
    pipes = tmp_path / "pipes"
    pipes.mkdir()
    journal.keep_instance(instance)
    journal.keep_daemon(str(pipes))
    held = {**os.environ, "CUDA_VISIBLE_DEVICES": instance.uuid, "CUDA_MPS_PIPE_DIRECTORY": str(pipes)}
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=held, start_new_session=True
    ) as daemon:
        assert end_orphans(journal, tmp_path) == 2
        assert daemon.wait(timeout=10) == -9
    assert instances.instances() == () and journal.daemons() == () and not pipes.exists()


def test_containers_that_outlive_their_controller_are_removed(tmp_path: Path, journal: Journal) -> None:
    docker = Docker(tmp_path / "docker", "image")
    for name, run_dir in (("one", "/run/1"), ("two", "/run/1"), ("others", "/run/2")):
        label = f"--label=jigsaw-triton.deployment={run_dir}"
        with subprocess.Popen(
            [str(docker.program), "run", f"--name={name}", label, "image", "/bin/sleep", "600"]
        ) as cli:
            while name not in docker.containers():
                time.sleep(0.01)
            cli.kill()
    note_runtime(journal, Runtime(docker.program, (0, 0)), Path("/run/1"))
    assert end_orphans(journal, tmp_path) == 2
    assert docker.containers() == ["others"]
    # After a cleanup the container runtime is not called again: it may have been uninstalled by then.
    docker.program.write_text("#!/bin/sh\nexit 1\n")
    assert end_orphans(journal, tmp_path) == 0
    docker = Docker(tmp_path / "docker", "image")
    end_container(Container(Runtime(docker.program, (0, 0)), "others"))
