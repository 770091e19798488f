import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from jigsaw_triton.controller.fleet.mig_pool import daemon_name
from jigsaw_triton.controller.fleet.orphans import DRIVER_FACT, Kept, end_orphans, end_servers, note_runtime, reclaim
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.emulated import EmulatedMigDriver
from jigsaw_triton.gpus.model import Gpu, GpuId, Placement
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from jigsaw_triton.servers.command import shm_prefix
from jigsaw_triton.servers.container import container_of
from jigsaw_triton.servers.image import Container, Runtime, end_container
from jigsaw_triton.servers.members import marks
from jigsaw_triton.servers.os_process import start_time
from tests.fakes.docker import Docker
from tests.fakes.nvml.machine import Machine

GPU = GpuId("n", 0)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path, tmp_path / "run")


@pytest.fixture
def driver(tmp_path: Path) -> EmulatedMigDriver:
    return EmulatedMigDriver(tmp_path / "mig.json", [Gpu(GPU, CATALOG["A100-80GB"])], holders_of=lambda _: ())


def test_instances_are_destroyed_through_the_driver_that_created_them(
    tmp_path: Path, paths: Paths, journal: Journal
) -> None:
    machine = Machine(tmp_path / "gpus", ["A100-80GB"])
    machine.enter()
    try:
        driver = NvmlMigDriver("n", {0: CATALOG["A100-80GB"]})
        other = driver.create(GPU, Placement(0, "3g"))
        journal.keep_instance(driver.create(GPU, Placement(4, "3g")))
        journal.keep_fact(DRIVER_FACT, "nvml")
        assert end_orphans(journal, paths) == 1
        assert driver.instances() == (other,)
        with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as file:
            assert ("nvml",) in file.execute("SELECT kind FROM actions").fetchall()
    finally:
        machine.leave()


def test_our_instances_are_destroyed_and_others_left(paths: Paths, journal: Journal, driver: EmulatedMigDriver) -> None:
    for start in (0, 1):
        journal.keep_instance(driver.create(GPU, Placement(start, "1g")))
    other = driver.create(GPU, Placement(2, "1g"))
    driver.destroy(journal.instances()[0].uuid)
    assert end_orphans(journal, paths) == 1
    assert driver.instances() == (other,)
    assert journal.instances() == ()


@contextmanager
def running(script: str, paths: Paths, server: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Runs a Python script as a server of the deployment, with its standard input and output piped."""
    env = {**os.environ, **marks(paths.state, server), **variables}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=True,
    ) as process:
        try:
            # The kernel shows the environment a moment after the start of the program.
            environment = Path(f"/proc/{process.pid}/environ")
            while not environment.read_bytes():
                time.sleep(0.001)
            yield process
        finally:
            process.kill()


def test_servers_are_killed_with_their_shared_memory(paths: Paths, journal: Journal) -> None:
    region = Path("/dev/shm") / f"{shm_prefix(paths.run, 'gateway')}1"
    region.touch()
    with running("input()", paths, "gateway") as process:
        assert end_orphans(journal, paths) == 1
        assert process.wait(timeout=10) == -9
    assert not region.exists()


def test_shared_memory_of_servers_that_have_ended_is_removed(paths: Paths, journal: Journal) -> None:
    paths.worker_repository("n-0-1g-0").mkdir(parents=True)
    region = Path("/dev/shm") / f"{shm_prefix(paths.run, 'n-0-1g-0')}1"
    region.touch()
    assert end_orphans(journal, paths) == 0
    assert not region.exists()


def test_stubs_that_outlive_their_server_are_killed(paths: Paths, journal: Journal) -> None:
    script = (
        "import subprocess, sys; wait = 'import sys; sys.stdin.read()'; "
        "child = subprocess.Popen([sys.executable, '-c', wait]); print(child.pid, flush=True)"
    )
    with running(script, paths, "gateway") as leader:
        assert leader.stdout is not None
        stub = int(leader.stdout.readline())
        leader.wait(timeout=10)
        assert end_orphans(journal, paths) == 1
        assert start_time(stub) is None


def test_processes_of_other_deployments_and_kept_servers_are_left_alone(paths: Paths, journal: Journal) -> None:
    other = Paths(paths.state.with_name("other"), paths.run)
    with running("input()", other, "gateway") as others, running("input()", paths, "n-0-1g-0") as kept:
        assert end_orphans(journal, paths, Kept(frozenset({"n-0-1g-0"}))) == 0
        assert others.poll() is None and kept.poll() is None


def test_servers_are_ended_by_their_names_with_their_containers(tmp_path: Path, paths: Paths, journal: Journal) -> None:
    docker = Docker(tmp_path / "docker", "image")
    runtime = Runtime(docker.program, (0, 0))
    note_runtime(journal, runtime, paths.run)
    name = container_of(runtime, shm_prefix(paths.run, "gateway")).name
    with (
        running("input()", paths, "gateway") as ended,
        running("input()", paths, "n-0-1g-0") as other,
        subprocess.Popen([str(docker.program), "run", f"--name={name}", "image", "/bin/sleep", "600"]),
    ):
        while name not in docker.containers():
            time.sleep(0.01)
        end_servers(journal, paths, {"gateway", "edge"})
        assert ended.wait(timeout=10) == -9 and other.poll() is None
        assert docker.containers() == []


def test_an_mps_daemon_is_killed_before_its_instance_is_destroyed(paths: Paths, journal: Journal) -> None:
    instances = EmulatedMigDriver(paths.state / "mig.json", [Gpu(GPU, CATALOG["A100-80GB"])])
    instance = instances.create(GPU, Placement(0, "1g"))
    journal.keep_instance(instance)
    with running("input()", paths, daemon_name("n-0-1g-0"), CUDA_VISIBLE_DEVICES=instance.uuid) as daemon:
        assert end_orphans(journal, paths) == 2
        assert daemon.wait(timeout=10) == -9
    assert instances.instances() == ()


def test_instances_of_running_servers_are_destroyed_although_the_journal_was_lost(
    paths: Paths, journal: Journal
) -> None:
    instances = EmulatedMigDriver(paths.state / "mig.json", [Gpu(GPU, CATALOG["A100-80GB"])])
    ours, others = (instances.create(GPU, Placement(start, "1g")) for start in (0, 1))
    with running("input()", paths, "n-0-1g-0", CUDA_VISIBLE_DEVICES=ours.uuid):
        assert end_orphans(journal, paths) == 2
    assert instances.instances() == (others,)


def test_an_instance_that_only_a_descendant_of_a_server_uses_is_not_ours(paths: Paths, journal: Journal) -> None:
    instances = EmulatedMigDriver(paths.state / "mig.json", [Gpu(GPU, CATALOG["A100-80GB"])])
    others = instances.create(GPU, Placement(1, "1g"))
    with (
        running("input()", paths, "steps-app"),
        running("input()", paths, "steps-app", CUDA_VISIBLE_DEVICES=others.uuid),
    ):
        reclaim(journal, paths)
    assert journal.instances() == ()


def test_containers_that_outlive_their_controller_are_removed(tmp_path: Path, paths: Paths, journal: Journal) -> None:
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
    assert end_orphans(journal, paths) == 2
    assert docker.containers() == ["others"]
    # After a cleanup the container runtime is not called again: it may have been uninstalled by then.
    docker.program.write_text("#!/bin/sh\nexit 1\n")
    assert end_orphans(journal, paths) == 0
    docker = Docker(tmp_path / "docker", "image")
    end_container(Container(Runtime(docker.program, (0, 0)), "others"))
