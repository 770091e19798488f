import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.errors import InstanceInUseError, MigError, PlacementError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.emulated import Delays, EmulatedMigDriver, Operation
from jigsaw_triton.gpus.model import Gpu, GpuId, Placement

A0 = GpuId("a", 0)
A1 = GpuId("a", 1)
B0 = GpuId("b", 0)
GPUS = (Gpu(A0, board("A100-80GB")), Gpu(A1, board("A30-24GB")), Gpu(B0, board("cpu")))
UUID = r"MIG-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def driver(folder: Path, **options: Any) -> EmulatedMigDriver:
    return EmulatedMigDriver(folder / "mig.json", GPUS, **{"holders_of": lambda uuid: (), **options})


def test_reading_writes_nothing(tmp_path: Path) -> None:
    assert driver(tmp_path / "state").instances() == ()
    assert list(tmp_path.iterdir()) == []


def test_all_who_hold_it_are_named(tmp_path: Path) -> None:
    here = driver(tmp_path, holders_of=lambda uuid: (12, 345))
    instance = here.create(A0, Placement(0, "1g"))
    with pytest.raises(InstanceInUseError, match="12, 345"):
        here.destroy(instance.uuid)


def test_a_write_that_was_cut_short_leaves_the_state_as_it_was(tmp_path: Path) -> None:
    here = driver(tmp_path)
    first = here.create(A0, Placement(0, "1g"))
    (tmp_path / "mig.json.new").write_text('{"version": 1, "insta')
    assert here.instances() == (first,)
    second = here.create(A0, Placement(1, "1g"))
    assert here.instances() == (first, second)


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
def test_a_damaged_file_is_named_with_the_remedy_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mig.json"
    path.write_bytes(content)
    here = driver(tmp_path)
    for attempt in (here.instances, lambda: here.create(A0, Placement(4, "1g")), lambda: here.destroy("MIG-x")):
        with pytest.raises(MigError, match="damaged") as caught:
            attempt()
        assert caught.value.where == str(path)
        assert "delete the file" in caught.value.hint
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    here = driver(tmp_path / "file")
    with pytest.raises(MigError, match="cannot be written") as caught:
        here.create(A0, Placement(0, "1g"))
    assert caught.value.where == str(tmp_path / "file" / "mig.json")
    with pytest.raises(MigError, match="cannot be read"):
        here.instances()


def test_only_the_owner_may_read_what_it_writes(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        driver(tmp_path).create(A0, Placement(0, "1g"))
    finally:
        os.umask(previous)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"mig.json": 0o600, "mig.json.lock": 0o600}


def test_instances_on_gpus_that_are_not_of_the_cluster_stay_until_asked_for(tmp_path: Path) -> None:
    foreign = EmulatedMigDriver(tmp_path / "mig.json", [Gpu(GpuId("z", 0), board("cpu"))])
    kept = foreign.create(GpuId("z", 0), Placement(0, "7g"))
    here = driver(tmp_path)
    own = here.create(A0, Placement(0, "7g"))
    here.destroy(own.uuid)
    assert here.instances() == foreign.instances() == (kept,)
    here.destroy(kept.uuid)
    assert foreign.instances() == ()


def test_a_gpu_that_became_another_board_must_lose_what_does_not_fit_it(tmp_path: Path) -> None:
    before = driver(tmp_path).create(A0, Placement(6, "1g"))
    here = EmulatedMigDriver(tmp_path / "mig.json", [Gpu(A0, board("A30-24GB"))])
    with pytest.raises(PlacementError, match="cannot start at 6"):
        here.create(A0, Placement(0, "1g"))
    here.destroy(before.uuid)
    here.create(A0, Placement(0, "1g"))


def test_changes_take_their_delay_and_reading_takes_none(tmp_path: Path) -> None:
    slept: list[float] = []
    here = driver(tmp_path, delays=Delays(create_ms=200, destroy_ms=1000), sleep=slept.append)
    instance = here.create(A0, Placement(0, "1g"))
    here.instances()
    here.destroy(instance.uuid)
    assert slept == [0.2, 1.0]


def test_a_fault_makes_a_change_fail_and_leaves_the_state(tmp_path: Path) -> None:
    seen: list[tuple[Operation, GpuId, Placement]] = []

    def third_fails(operation: Operation, gpu: GpuId, placement: Placement) -> None:
        seen.append((operation, gpu, placement))
        if len(seen) == 3:
            raise InstanceInUseError("a monitoring agent holds it")

    here = driver(tmp_path, fault=third_fails)
    first, second = here.create(A0, Placement(0, "1g")), here.create(A0, Placement(1, "1g"))
    with pytest.raises(InstanceInUseError, match="agent"):
        here.destroy(second.uuid)
    assert here.instances() == (first, second)
    here.destroy(second.uuid)
    assert seen == [
        ("create", A0, Placement(0, "1g")),
        ("create", A0, Placement(1, "1g")),
        ("destroy", A0, Placement(1, "1g")),
        ("destroy", A0, Placement(1, "1g")),
    ]
