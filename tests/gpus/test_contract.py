"""What every MIG driver does, whatever is under it."""

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
from tests.gpus.drivers import A0, A1, GPUS, KINDS, Kind, World, world_of

UUID = r"MIG-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with world_of(request.param, tmp_path) as world:
        yield world


def test_there_is_nothing_at_first(world: World) -> None:
    assert world.driver().instances() == ()


def test_instances_are_seen_by_everyone_sorted(world: World) -> None:
    here = world.driver()
    places = [(A1, Placement(0, "4g")), (A0, Placement(4, "3g")), (A0, Placement(0, "1g"))]
    made = [here.create(gpu, placement) for gpu, placement in places]
    assert [(i.gpu, i.placement) for i in made] == places
    assert world.driver().instances() == (made[2], made[1], made[0])
    here.destroy(made[1].uuid)
    assert world.driver().instances() == (made[2], made[0])


def test_how_far_a_creation_gets_is_told_before(world: World) -> None:
    seen: list[tuple[CreationStage, list[bool]]] = []

    def reached(stage: CreationStage) -> None:
        seen.append((stage, [i.half_made for i in world.driver().instances()]))

    world.driver().create(A0, Placement(0, "2g"), reached)
    assert seen[-1][0] is CreationStage.WHOLE
    # Nothing is whole before that was told.
    assert all(all(half_made) for _, half_made in seen)


def test_who_cannot_note_how_far_a_creation_gets_ends_it(world: World) -> None:
    for last in (CreationStage.PART, CreationStage.WHOLE):

        def full(stage: CreationStage, last: CreationStage = last) -> None:
            if stage >= last:
                raise StateError("the disk is full")

        with pytest.raises(StateError):
            world.driver().create(A0, Placement(0, "2g"), full)
        assert world.driver().instances() == ()


def test_an_instance_made_again_has_another_uuid(world: World) -> None:
    here = world.driver()
    uuids = set()
    for _ in range(3):
        instance = here.create(A0, Placement(0, "2g"))
        assert re.fullmatch(UUID, instance.uuid)
        assert not instance.half_made
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
        (GpuId("a", 2), Placement(0, "1g"), "no such GPU; the cluster has a/0, a/1"),
        (GpuId("c", 0), Placement(0, "1g"), "no such GPU; the cluster has a/0, a/1"),
    ],
)
def test_what_cannot_be_created_is_refused_and_changes_nothing(
    world: World, gpu: GpuId, placement: Placement, reason: str
) -> None:
    here = world.driver()
    existing = here.create(A0, Placement(0, "2g"))
    with pytest.raises(PlacementError) as caught:
        here.create(gpu, placement)
    assert reason in str(caught.value)
    assert caught.value.where == str(gpu)
    assert here.instances() == (existing,)


def test_a_second_media_exclusive_instance_is_refused(world: World) -> None:
    here = world.driver()
    made = here.create(A1, Placement(0, "1g+me"))
    assert here.instances() == (made,)
    with pytest.raises(PlacementError, match="media engines"):
        here.create(A1, Placement(2, "2g+me"))


@pytest.mark.slow
@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.board.name)
def test_every_maximal_layout_can_be_made_in_any_order(world: World, gpu: Any) -> None:
    shuffle = random.Random(7)
    here = world.driver()
    for layout in maximal_layouts(gpu.board):
        for placement in shuffle.sample(layout, len(layout)):
            here.create(gpu.id, placement)
        assert tuple(i.placement for i in here.instances()) == layout
        for kind in gpu.board.profiles:
            for start in gpu.board.profiles[kind].starts:
                with pytest.raises(PlacementError):
                    here.create(gpu.id, Placement(start, kind))
        for instance in here.instances():
            here.destroy(instance.uuid)


class Sequences(RuleBasedStateMachine):
    """Any sequence of creations and destructions, beside a dictionary that says what must be there."""

    kind: Kind
    made: Bundle[str] = Bundle("made")

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.world = self.stack.enter_context(world_of(self.kind, Path(folder)))
        self.expected: dict[str, MigInstance] = {}

    def teardown(self) -> None:
        self.stack.close()

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
            instance = self.world.driver().create(gpu, placement)
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
        self.world.driver().destroy(uuid)
        del self.expected[uuid]
        with pytest.raises(InstanceNotFoundError):
            self.world.driver().destroy(uuid)

    @invariant()
    def what_is_there_is_what_was_made_and_fits(self) -> None:
        found = self.world.driver().instances()
        assert {i.uuid: i for i in found} == self.expected
        for gpu in GPUS:
            assert fits(gpu.board, [i.placement for i in found if i.gpu == gpu.id]) is None


class EmulatedSequences(Sequences):
    kind = "emulated"


class NvmlSequences(Sequences):
    kind = "nvml"


_SEQUENCES = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestEmulatedSequences = pytest.mark.slow(EmulatedSequences.TestCase)
TestEmulatedSequences.settings = _SEQUENCES
TestNvmlSequences = pytest.mark.slow(NvmlSequences.TestCase)
TestNvmlSequences.settings = _SEQUENCES

_COMPETE = """
made = []
for start in range(7):
    try:
        made.append(here.create(A0, Placement(start, "1g")))
    except PlacementError:
        continue
    if start % 2:
        here.destroy(made.pop().uuid)
print(*(instance.uuid for instance in made))
"""


@pytest.mark.slow
def test_processes_that_compete_never_exceed_a_gpu(world: World) -> None:
    running = [world.python(_COMPETE) for _ in range(4)]
    made = [uuid for process in running for uuid in process.communicate()[0].split()]
    assert [process.returncode for process in running] == [0] * 4
    found = world.driver().instances()
    assert sorted(i.uuid for i in found) == sorted(made)
    assert [i.placement.start for i in found] == [0, 2, 4, 6]


def test_an_instance_that_a_process_holds_is_not_destroyed(world: World) -> None:
    here = world.driver()
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


_CHURN = """
while True:
    made = [here.create(A0, Placement(start, "1g")) for start in range(3)]
    print("round", flush=True)
    for instance in made:
        here.destroy(instance.uuid)
"""


@pytest.mark.slow
def test_the_state_survives_a_process_killed_in_the_middle_of_changes(world: World) -> None:
    for rounds in (1, 4, 9):
        with world.python(_CHURN) as child:
            assert child.stdout is not None
            for _ in range(rounds):
                assert child.stdout.readline() == "round\n"
            child.send_signal(signal.SIGKILL)
        here = world.driver()
        assert {i.placement for i in here.instances()} <= {Placement(start, "1g") for start in range(3)}
        here.create(A0, Placement(4, "3g"))
        for instance in here.instances():
            here.destroy(instance.uuid)
        assert here.instances() == ()
