import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jigsaw_triton.controller.journal import Journal, ServerRecord
from jigsaw_triton.controller.leftovers import end_leftovers, start_time
from jigsaw_triton.errors import InstanceInUseError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.emulated import EmulatedMigDriver
from jigsaw_triton.gpus.model import Gpu, GpuId, Placement
from jigsaw_triton.servers.process import group_members

GPU = GpuId("n", 0)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite")
    yield journal
    journal.close()


@pytest.fixture
def driver(tmp_path: Path) -> EmulatedMigDriver:
    return EmulatedMigDriver(tmp_path / "mig.json", [Gpu(GPU, CATALOG["A100-80GB"])], holders_of=lambda _: ())


def test_instances_that_are_ours_are_destroyed_and_others_left(journal: Journal, driver: EmulatedMigDriver) -> None:
    for start in (0, 1):
        journal.keep_instance(driver.create(GPU, Placement(start, "1g")))
    other = driver.create(GPU, Placement(2, "1g"))
    driver.destroy(journal.instances()[0].uuid)
    assert end_leftovers(journal, driver) == 1
    assert driver.instances() == (other,)
    assert journal.instances() == ()


def test_what_was_created_but_not_noted_any_more_is_ours(journal: Journal, driver: EmulatedMigDriver) -> None:
    journal.begin_creation(GPU, Placement(3, "1g"))
    journal.begin_creation(GPU, Placement(4, "1g"))
    driver.create(GPU, Placement(3, "1g"))
    kept = driver.create(GPU, Placement(4, "1g"))
    journal.end_creation(GPU, Placement(4, "1g"))
    assert end_leftovers(journal, driver) == 1
    assert driver.instances() == (kept,)
    assert journal.creations() == ()


def test_servers_are_killed_with_their_group_and_their_regions(journal: Journal, driver: EmulatedMigDriver) -> None:
    prefix = f"jigsaw-test-{os.getpid()}-"
    region = Path("/dev/shm") / f"{prefix}1"
    region.touch()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as process:
        journal.keep_server(ServerRecord("gateway", process.pid, start_time(process.pid) or 0, prefix))
        assert end_leftovers(journal, driver) == 1
        assert process.wait(timeout=10) == -9
    assert not region.exists()
    assert journal.servers() == ()


def test_stubs_that_outlived_their_server_are_killed(journal: Journal, driver: EmulatedMigDriver) -> None:
    prefix = f"jigsaw-test-{os.getpid()}-"
    # A leader that leaves two behind in its group: one with the server's prefix, one that anybody may have started.
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
        assert end_leftovers(journal, driver) == 1
        assert group_members(leader.pid) == [other]
        assert stub != other
        leader.stdin.close()


def test_a_process_that_only_has_the_pid_of_a_server_is_left_alone(journal: Journal, driver: EmulatedMigDriver) -> None:
    journal.keep_server(ServerRecord("gateway", os.getpid(), 1, "jigsaw-test-nobodys-"))
    assert end_leftovers(journal, driver) == 0
    assert journal.servers() == ()


def test_an_instance_that_somebody_holds_is_told(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jigsaw_triton.controller.leftovers.time.sleep", lambda _: None)
    driver = EmulatedMigDriver(tmp_path / "m.json", [Gpu(GPU, CATALOG["A100-80GB"])], holders_of=lambda _: (4711,))
    journal.keep_instance(driver.create(GPU, Placement(0, "1g")))
    with pytest.raises(InstanceInUseError, match="4711"):
        end_leftovers(journal, driver)
    assert len(journal.instances()) == 1
