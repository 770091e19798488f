"""The contract that all MIG drivers fulfil."""

import os
import random
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from jigsaw_triton.errors import InstanceInUseError, InstanceNotFoundError, PlacementError, StateError
from jigsaw_triton.gpus.layouts import fits, maximal_layouts
from jigsaw_triton.gpus.model import SLICES, CreationStage, GpuId, MigInstance, Placement
from tests.examples import examples
from tests.gpus.drivers import A0, A1, GPUS, KINDS, Kind, World, entered_world

pytestmark = pytest.mark.slow

UUID = r"MIG-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with entered_world(request.param, tmp_path) as world:
        yield world


def test_there_are_no_instances_at_first(world: World) -> None:
    assert world.driver().instances() == ()


def test_every_driver_sees_all_instances_sorted(world: World) -> None:
    driver = world.driver()
    places = [(A1, Placement(0, "4g")), (A0, Placement(4, "3g")), (A0, Placement(0, "1g"))]
    created = [driver.create(gpu, placement) for gpu, placement in places]
    assert [(i.gpu, i.placement) for i in created] == places
    assert world.driver().instances() == (created[2], created[1], created[0])
    driver.destroy(created[1].uuid)
    assert world.driver().instances() == (created[2], created[0])


def test_each_stage_of_a_creation_is_announced_before_it_is_entered(world: World) -> None:
    seen: list[tuple[CreationStage, list[bool]]] = []

    def reached(stage: CreationStage) -> None:
        seen.append((stage, [i.half_made for i in world.driver().instances()]))

    world.driver().create(A0, Placement(0, "2g"), reached)
    assert seen[-1][0] is CreationStage.WHOLE
    # No instance is complete before the last stage was announced.
    assert all(all(half_made) for _, half_made in seen)


def test_an_exception_from_the_stage_callback_undoes_the_creation(world: World) -> None:
    for last in (CreationStage.PART, CreationStage.WHOLE):

        def fail_at(stage: CreationStage, last: CreationStage = last) -> None:
            if stage >= last:
                raise StateError("the disk is full")

        with pytest.raises(StateError):
            world.driver().create(A0, Placement(0, "2g"), fail_at)
        assert world.driver().instances() == ()


def test_a_recreated_instance_has_a_new_uuid(world: World) -> None:
    driver = world.driver()
    uuids = set()
    for _ in range(3):
        instance = driver.create(A0, Placement(0, "2g"))
        assert re.fullmatch(UUID, instance.uuid)
        assert not instance.half_made
        uuids.add(instance.uuid)
        driver.destroy(instance.uuid)
    assert len(uuids) == 3


@pytest.mark.parametrize(
    ("gpu", "placement", "reason"),
    [
        (A0, Placement(1, "1g"), "1g@1 overlaps 2g@0"),
        (A0, Placement(4, "4g"), "cannot start at 4"),
        (A0, Placement(0, "9g"), "has no slice 9g"),
        (A1, Placement(0, "3g"), "has no slice 3g"),
        (GpuId("a", 2), Placement(0, "1g"), "no such GPU; the cluster has a/0, a/1"),
        (GpuId("c", 0), Placement(0, "1g"), "no such GPU; the cluster has a/0, a/1"),
    ],
)
def test_an_impossible_placement_is_refused_and_changes_nothing(
    world: World, gpu: GpuId, placement: Placement, reason: str
) -> None:
    driver = world.driver()
    existing = driver.create(A0, Placement(0, "2g"))
    with pytest.raises(PlacementError) as caught:
        driver.create(gpu, placement)
    assert reason in str(caught.value)
    assert caught.value.where == str(gpu)
    assert driver.instances() == (existing,)


def test_a_second_media_exclusive_instance_is_refused(world: World) -> None:
    driver = world.driver()
    created = driver.create(A1, Placement(0, "1g+me"))
    assert driver.instances() == (created,)
    with pytest.raises(PlacementError, match="media engines"):
        driver.create(A1, Placement(2, "2g+me"))


@pytest.mark.slow
@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.board.name)
def test_every_maximal_layout_can_be_created_in_any_order(world: World, gpu: Any) -> None:
    shuffle = random.Random(7)
    driver = world.driver()
    for layout in maximal_layouts(gpu.board):
        for placement in shuffle.sample(layout, len(layout)):
            driver.create(gpu.id, placement)
        assert tuple(i.placement for i in driver.instances()) == layout
        for kind in gpu.board.profiles:
            for start in gpu.board.profiles[kind].starts:
                with pytest.raises(PlacementError):
                    driver.create(gpu.id, Placement(start, kind))
        for instance in driver.instances():
            driver.destroy(instance.uuid)


class Sequences(RuleBasedStateMachine):
    """Random creations and destructions, compared with a dictionary of the expected instances."""

    kind: Kind
    created: Bundle[str] = Bundle("created")

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.world = self.stack.enter_context(entered_world(self.kind, Path(folder)))
        self.expected: dict[str, MigInstance] = {}

    def teardown(self) -> None:
        self.stack.close()

    @rule(
        target=created,
        gpu=st.sampled_from([g.id for g in GPUS]),
        kind=st.sampled_from([*SLICES, "1g+me", "2g+me"]),
        start=st.integers(0, 7),
    )
    def create(self, gpu: GpuId, kind: str, start: int) -> Any:
        placement = Placement(start, kind)
        item = next(g.board for g in GPUS if g.id == gpu)
        reason = fits(item, [*(i.placement for i in self.expected.values() if i.gpu == gpu), placement])
        try:
            instance = self.world.driver().create(gpu, placement)
        except PlacementError as error:
            assert reason is not None
            assert reason in str(error)
            return multiple()
        assert reason is None
        assert (instance.gpu, instance.placement) == (gpu, placement)
        self.expected[instance.uuid] = instance
        return instance.uuid

    @rule(uuid=consumes(created))
    def destroy(self, uuid: str) -> None:
        self.world.driver().destroy(uuid)
        del self.expected[uuid]
        with pytest.raises(InstanceNotFoundError):
            self.world.driver().destroy(uuid)

    @invariant()
    def instances_are_those_created_and_fit(self) -> None:
        found = self.world.driver().instances()
        assert {i.uuid: i for i in found} == self.expected
        for gpu in GPUS:
            assert fits(gpu.board, [i.placement for i in found if i.gpu == gpu.id]) is None


class EmulatedSequences(Sequences):
    kind = "emulated"


class NvmlSequences(Sequences):
    kind = "nvml"


_SEQUENCES = settings(max_examples=examples(12), stateful_step_count=25, deadline=None)
TestEmulatedSequences = pytest.mark.slow(EmulatedSequences.TestCase)
TestEmulatedSequences.settings = _SEQUENCES
TestNvmlSequences = pytest.mark.slow(NvmlSequences.TestCase)
TestNvmlSequences.settings = _SEQUENCES

_COMPETING_PROGRAM = """
created = []
for start in range(7):
    try:
        created.append(driver.create(A0, Placement(start, "1g")))
    except PlacementError:
        continue
    if start % 2:
        driver.destroy(created.pop().uuid)
print(*(instance.uuid for instance in created))
"""


def test_competing_processes_never_overfill_a_gpu(world: World) -> None:
    running = [world.python(_COMPETING_PROGRAM) for _ in range(4)]
    created = [uuid for process in running for uuid in process.communicate()[0].split()]
    assert [process.returncode for process in running] == [0] * 4
    found = world.driver().instances()
    assert sorted(i.uuid for i in found) == sorted(created)
    assert [i.placement.start for i in found] == [0, 2, 4, 6]


def test_an_instance_that_a_process_holds_is_not_destroyed(world: World) -> None:
    driver = world.driver()
    held, free = driver.create(A0, Placement(0, "1g")), driver.create(A0, Placement(1, "1g"))
    with subprocess.Popen(["sleep", "100"], env={**os.environ, "CUDA_VISIBLE_DEVICES": held.uuid}) as child:
        try:
            with pytest.raises(InstanceInUseError, match=rf"1g@0 of a/0 is held by process {child.pid}\b") as caught:
                driver.destroy(held.uuid)
            assert caught.value.where == held.uuid
            driver.destroy(free.uuid)
            assert driver.instances() == (held,)
        finally:
            child.kill()
    driver.destroy(held.uuid)
    assert driver.instances() == ()


_ENDLESS_PROGRAM = """
while True:
    created = [driver.create(A0, Placement(start, "1g")) for start in range(3)]
    print("round", flush=True)
    for instance in created:
        driver.destroy(instance.uuid)
"""


def test_the_state_survives_a_process_that_is_killed_during_changes(world: World) -> None:
    for rounds in (1, 4, 9):
        with world.python(_ENDLESS_PROGRAM) as child:
            assert child.stdout is not None
            for _ in range(rounds):
                assert child.stdout.readline() == "round\n"
            child.send_signal(signal.SIGKILL)
        driver = world.driver()
        assert {i.placement for i in driver.instances()} <= {Placement(start, "1g") for start in range(3)}
        driver.create(A0, Placement(4, "3g"))
        for instance in driver.instances():
            driver.destroy(instance.uuid)
        assert driver.instances() == ()
