import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.errors import GpuLostError, InstanceInUseError, MigError, PlacementError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.emulated import Delays, EmulatedMigDriver, Operation
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, Placement

A0 = GpuId("a", 0)
A1 = GpuId("a", 1)
B0 = GpuId("b", 0)
GPUS = (Gpu(A0, board("A100-80GB")), Gpu(A1, board("A30-24GB")), Gpu(B0, board("cpu")))
UUID = r"MIG-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def open_driver(folder: Path, **options: Any) -> EmulatedMigDriver:
    return EmulatedMigDriver(folder / "mig.json", GPUS, **{"holders_of": lambda uuid: (), **options})


def test_reading_creates_no_files(tmp_path: Path) -> None:
    assert open_driver(tmp_path / "state").instances() == ()
    assert list(tmp_path.iterdir()) == []


def test_all_holders_are_named(tmp_path: Path) -> None:
    driver = open_driver(tmp_path, holders_of=lambda uuid: (12, 345))
    instance = driver.create(A0, Placement(0, "1g"))
    with pytest.raises(InstanceInUseError, match="12, 345"):
        driver.destroy(instance.uuid)


def test_an_interrupted_write_leaves_the_state_unchanged(tmp_path: Path) -> None:
    driver = open_driver(tmp_path)
    first = driver.create(A0, Placement(0, "1g"))
    (tmp_path / "mig.json.new").write_text('{"version": 1, "insta')
    assert driver.instances() == (first,)
    second = driver.create(A0, Placement(1, "1g"))
    assert driver.instances() == (first, second)


def record(**changes: Any) -> dict[str, Any]:
    return {"node": "a", "index": 0, "slice": "1g", "start": 0, "uuid": "MIG-x", **changes}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        json.dumps({"version": 2, "instances": []}).encode(),
        json.dumps({"version": 1}).encode(),
        json.dumps({"version": 1, "instances": 3}).encode(),
        json.dumps({"version": 1, "instances": ["x"]}).encode(),
        json.dumps({"version": 1, "instances": [{"node": "a"}]}).encode(),
        json.dumps({"version": 1, "instances": [record(index="0")]}).encode(),
        json.dumps({"version": 1, "instances": [record(start=True)]}).encode(),
        json.dumps({"version": 1, "instances": [record(node=None)]}).encode(),
        json.dumps({"version": 1, "instances": [record(slice="5g")]}).encode(),
        json.dumps({"version": 1, "instances": [record(uuid="GPU-x")]}).encode(),
        json.dumps({"version": 1, "instances": [record(), record(start=1)]}).encode(),
    ],
    ids=range(18),
)
def test_a_damaged_file_is_reported_with_the_remedy_and_left_unchanged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mig.json"
    path.write_bytes(content)
    driver = open_driver(tmp_path)
    for attempt in (driver.instances, lambda: driver.create(A0, Placement(4, "1g")), lambda: driver.destroy("MIG-x")):
        with pytest.raises(MigError, match="damaged") as caught:
            attempt()
        assert caught.value.where == str(path)
        assert "delete the file" in caught.value.hint
    assert path.read_bytes() == content


def test_a_path_that_is_not_writable_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    driver = open_driver(tmp_path / "file")
    with pytest.raises(MigError, match="cannot be written") as caught:
        driver.create(A0, Placement(0, "1g"))
    assert caught.value.where == str(tmp_path / "file" / "mig.json")
    with pytest.raises(MigError, match="cannot be read"):
        driver.instances()


def test_state_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        open_driver(tmp_path).create(A0, Placement(0, "1g"))
    finally:
        os.umask(previous)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"mig.json": 0o600, "mig.json.lock": 0o600}


def test_instances_on_gpus_outside_the_cluster_stay_until_destroyed(tmp_path: Path) -> None:
    foreign = EmulatedMigDriver(tmp_path / "mig.json", [Gpu(GpuId("z", 0), board("cpu"))])
    kept = foreign.create(GpuId("z", 0), Placement(0, "7g"))
    driver = open_driver(tmp_path)
    own = driver.create(A0, Placement(0, "7g"))
    driver.destroy(own.uuid)
    assert driver.instances() == foreign.instances() == (kept,)
    driver.destroy(kept.uuid)
    assert foreign.instances() == ()


def test_instances_that_do_not_fit_a_changed_board_block_new_ones(tmp_path: Path) -> None:
    before = open_driver(tmp_path).create(A0, Placement(6, "1g"))
    driver = EmulatedMigDriver(tmp_path / "mig.json", [Gpu(A0, board("A30-24GB"))])
    with pytest.raises(PlacementError, match="cannot start at 6"):
        driver.create(A0, Placement(0, "1g"))
    driver.destroy(before.uuid)
    driver.create(A0, Placement(0, "1g"))


def test_changes_are_delayed_and_reads_are_not(tmp_path: Path) -> None:
    slept: list[float] = []
    driver = open_driver(tmp_path, delays=Delays(create_ms=200, destroy_ms=1000), sleep=slept.append)
    instance = driver.create(A0, Placement(0, "1g"))
    driver.instances()
    driver.destroy(instance.uuid)
    assert slept == [0.2, 1.0]


def test_a_fault_makes_a_change_fail_and_keeps_the_state(tmp_path: Path) -> None:
    seen: list[tuple[Operation, GpuId, Placement]] = []

    def third_fails(operation: Operation, gpu: GpuId, placement: Placement) -> None:
        seen.append((operation, gpu, placement))
        if len(seen) == 3:
            raise InstanceInUseError("a monitoring agent holds it")

    driver = open_driver(tmp_path, fault=third_fails)
    first, second = driver.create(A0, Placement(0, "1g")), driver.create(A0, Placement(1, "1g"))
    with pytest.raises(InstanceInUseError, match="agent"):
        driver.destroy(second.uuid)
    assert driver.instances() == (first, second)
    driver.destroy(second.uuid)
    assert seen == [
        ("create", A0, Placement(0, "1g")),
        ("create", A0, Placement(1, "1g")),
        ("destroy", A0, Placement(1, "1g")),
        ("destroy", A0, Placement(1, "1g")),
    ]


def test_a_lost_gpu_has_no_instances_until_it_is_back(tmp_path: Path) -> None:
    mig, cluster = open_driver(tmp_path), Cluster(GPUS)
    kept = mig.create(A1, Placement(0, "1g"))
    mig.create(A0, Placement(0, "1g"))
    mig.lose(A0)
    assert mig.instances() == (kept,)
    assert [gpu.id for gpu in mig.survey(cluster).gpus] == [A1, B0]
    with pytest.raises(GpuLostError):
        mig.create(A0, Placement(0, "1g"))
    mig.find(A0)
    assert open_driver(tmp_path).survey(cluster) == cluster
    mig.create(A0, Placement(0, "1g"))
