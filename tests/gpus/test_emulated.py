import json
import multiprocessing
import os
import random
import re
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from jigsaw_triton.errors import InstanceInUseError, InstanceNotFoundError, MigError, PlacementError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.emulated import Delays, EmulatedMigDriver, Operation
from jigsaw_triton.gpus.layouts import fits, maximal_layouts
from jigsaw_triton.gpus.model import SLICES, Gpu, GpuId, MigInstance, Placement

A0 = GpuId("a", 0)
A1 = GpuId("a", 1)
B0 = GpuId("b", 0)
GPUS = (Gpu(A0, board("A100-80GB")), Gpu(A1, board("A30-24GB")), Gpu(B0, board("cpu")))
UUID = r"MIG-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def driver(folder: Path, **options: Any) -> EmulatedMigDriver:
    return EmulatedMigDriver(folder / "mig.json", GPUS, **{"holders_of": lambda uuid: (), **options})


def test_there_is_nothing_at_first_and_reading_writes_nothing(tmp_path: Path) -> None:
    assert driver(tmp_path / "state").instances() == ()
    assert list(tmp_path.iterdir()) == []


def test_instances_are_seen_by_everyone_sorted(tmp_path: Path) -> None:
    here = driver(tmp_path)
    made = [
        here.create(g, p) for g, p in [(B0, Placement(0, "7g")), (A0, Placement(4, "3g")), (A0, Placement(0, "1g"))]
    ]
    assert driver(tmp_path).instances() == (made[2], made[1], made[0])
    here.destroy(made[1].uuid)
    assert driver(tmp_path).instances() == (made[2], made[0])


def test_an_instance_made_again_has_another_uuid(tmp_path: Path) -> None:
    here = driver(tmp_path)
    uuids = set()
    for _ in range(3):
        instance = here.create(A0, Placement(0, "2g"))
        assert re.fullmatch(UUID, instance.uuid)
        uuids.add(instance.uuid)
        here.destroy(instance.uuid)
    assert len(uuids) == 3


@pytest.mark.parametrize(
    ("gpu", "placement", "reason"),
    [
        (A0, Placement(1, "1g"), "1g@1 overlaps 2g@0"),
        (A0, Placement(4, "4g"), "cannot start at 4"),
        (A0, Placement(0, "9g"), "has no slice 9g"),
        (A1, Placement(0, "3g"), "has no slice 3g"),
        (GpuId("c", 0), Placement(0, "1g"), "no such GPU; the cluster has a/0, a/1, b/0"),
    ],
)
def test_what_cannot_be_created_is_refused_and_changes_nothing(
    tmp_path: Path, gpu: GpuId, placement: Placement, reason: str
) -> None:
    here = driver(tmp_path)
    existing = here.create(A0, Placement(0, "2g"))
    with pytest.raises(PlacementError) as caught:
        here.create(gpu, placement)
    assert reason in str(caught.value)
    assert caught.value.where == str(gpu)
    assert here.instances() == (existing,)


def test_a_second_media_exclusive_instance_is_refused(tmp_path: Path) -> None:
    here = driver(tmp_path)
    here.create(A1, Placement(0, "1g+me"))
    with pytest.raises(PlacementError, match="media engines"):
        here.create(A1, Placement(2, "2g+me"))


@pytest.mark.parametrize("name", ["A100-80GB", "A30-24GB"])
def test_every_maximal_layout_can_be_made_in_any_order(tmp_path: Path, name: str) -> None:
    item = board(name)
    shuffle = random.Random(7)
    for number, layout in enumerate(maximal_layouts(item)):
        gpu = Gpu(GpuId("n", number), item)
        here = EmulatedMigDriver(tmp_path / f"{number}.json", [gpu])
        for placement in shuffle.sample(layout, len(layout)):
            here.create(gpu.id, placement)
        assert tuple(i.placement for i in here.instances()) == layout
        for kind in item.profiles:
            for start in item.profiles[kind].starts:
                with pytest.raises(PlacementError):
                    here.create(gpu.id, Placement(start, kind))


class Sequences(RuleBasedStateMachine):
    """Any sequence of creations and destructions, beside a dictionary that says what must be there."""

    made: Bundle[str] = Bundle("made")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.expected: dict[str, MigInstance] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(
        target=made,
        gpu=st.sampled_from([g.id for g in GPUS]),
        kind=st.sampled_from([*SLICES, "1g+me", "2g+me"]),
        start=st.integers(0, 7),
    )
    def create(self, gpu: GpuId, kind: str, start: int) -> Any:
        placement = Placement(start, kind)
        item = next(g.board for g in GPUS if g.id == gpu)
        reason = fits(item, [*(i.placement for i in self.expected.values() if i.gpu == gpu), placement])
        try:
            instance = driver(self.path).create(gpu, placement)
        except PlacementError as error:
            assert reason is not None
            assert reason in str(error)
            return multiple()
        assert reason is None
        assert (instance.gpu, instance.placement) == (gpu, placement)
        self.expected[instance.uuid] = instance
        return instance.uuid

    @rule(uuid=consumes(made))
    def destroy(self, uuid: str) -> None:
        driver(self.path).destroy(uuid)
        del self.expected[uuid]
        with pytest.raises(InstanceNotFoundError):
            driver(self.path).destroy(uuid)

    @invariant()
    def what_is_there_is_what_was_made_and_fits(self) -> None:
        found = driver(self.path).instances()
        assert {i.uuid: i for i in found} == self.expected
        for gpu in GPUS:
            assert fits(gpu.board, [i.placement for i in found if i.gpu == gpu.id]) is None


TestSequences = Sequences.TestCase
TestSequences.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def _compete(path: Path) -> list[MigInstance]:
    here = EmulatedMigDriver(path, GPUS)
    made = []
    for start in range(7):
        try:
            made.append(here.create(A0, Placement(start, "1g")))
        except PlacementError:
            continue
        if start % 2:
            here.destroy(made.pop().uuid)
    return made


def test_processes_that_compete_never_exceed_a_gpu(tmp_path: Path) -> None:
    path = tmp_path / "mig.json"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        made = [i for each in pool.map(_compete, [path] * 6) for i in each]
    found = EmulatedMigDriver(path, GPUS).instances()
    assert sorted(i.uuid for i in found) == sorted(i.uuid for i in made)
    assert [i.placement.start for i in found] == [0, 2, 4, 6]


def test_an_instance_that_a_process_holds_is_not_destroyed(tmp_path: Path) -> None:
    here = EmulatedMigDriver(tmp_path / "mig.json", GPUS)
    held, free = here.create(A0, Placement(0, "1g")), here.create(A0, Placement(1, "1g"))
    with subprocess.Popen(["sleep", "100"], env={**os.environ, "CUDA_VISIBLE_DEVICES": held.uuid}) as child:
        try:
            with pytest.raises(InstanceInUseError, match=rf"1g@0 of a/0 is held by process {child.pid}\b") as caught:
                here.destroy(held.uuid)
            assert caught.value.where == held.uuid
            here.destroy(free.uuid)
            assert here.instances() == (held,)
        finally:
            child.kill()
    here.destroy(held.uuid)
    assert here.instances() == ()


def test_all_who_hold_it_are_named(tmp_path: Path) -> None:
    here = driver(tmp_path, holders_of=lambda uuid: (12, 345))
    instance = here.create(A0, Placement(0, "1g"))
    with pytest.raises(InstanceInUseError, match="12, 345"):
        here.destroy(instance.uuid)


_CHURN = """
import sys
from pathlib import Path
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.emulated import EmulatedMigDriver
from jigsaw_triton.gpus.model import Gpu, GpuId, Placement
gpu = Gpu(GpuId("a", 0), board("A100-80GB"))
here = EmulatedMigDriver(Path(sys.argv[1]), [gpu])
while True:
    made = [here.create(gpu.id, Placement(start, "1g")) for start in range(3)]
    print("round", flush=True)
    for instance in made:
        here.destroy(instance.uuid)
"""


def test_the_state_survives_a_process_killed_in_the_middle_of_changes(tmp_path: Path) -> None:
    path = tmp_path / "mig.json"
    for rounds in (1, 4, 9):
        command = [sys.executable, "-c", _CHURN, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(rounds):
                assert child.stdout.readline() == "round\n"
            child.send_signal(signal.SIGKILL)
        here = EmulatedMigDriver(path, GPUS)
        assert {i.placement for i in here.instances()} <= {Placement(start, "1g") for start in range(3)}
        here.create(A0, Placement(4, "3g"))
        for instance in here.instances():
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
