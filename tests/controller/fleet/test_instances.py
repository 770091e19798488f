"""Our MIG instances are recorded and those of others left alone, whatever goes wrong."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jigsaw_triton.controller.fleet.instances import IN_USE_TRIES, Instances
from jigsaw_triton.controller.fleet.ownership import ours
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.errors import InstanceInUseError, MigError, MigTimeoutError, PlacementError, StateError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.model import CreationStage, GpuId, Placement
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from jigsaw_triton.gpus.nvml_calls import Calls
from tests.fakes.nvml.machine import Action, Machine
from tests.fakes.nvml.transitions import IN_USE, NOT_FOUND, UNKNOWN, Owner, fewest_changes, plausible_codes, transitions

pytestmark = pytest.mark.slow

GPU = GpuId("n", 0)
PLACE = Placement(4, "3g")
CREATE_GPU, CREATE_COMPUTE = "nvmlDeviceCreateGpuInstanceWithPlacement", "nvmlGpuInstanceCreateComputeInstance"
DESTROY_GPU = "nvmlGpuInstanceDestroy"
CRASHES: tuple[Action, ...] = ("crash before", "crash after")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "gpus", ["A100-80GB"])
    machine.enter()
    yield machine
    machine.leave()


def opened(
    journal: Journal, *, sleep: Callable[[float], None] = lambda _: None, timeout_s: float = 30.0
) -> tuple[Instances, NvmlMigDriver]:
    driver = NvmlMigDriver("n", {0: board("A100-80GB")}, calls=Calls(timeout_s=timeout_s))
    return Instances(journal, driver, sleep=sleep), driver


def test_the_journal_records_creations_and_destructions(machine: Machine, journal: Journal) -> None:
    instances, driver = opened(journal)
    made = instances.create(GPU, PLACE)
    assert journal.instances() == driver.instances() == (made,)
    instances.destroy(made.uuid)
    assert journal.instances() == driver.instances() == ()
    assert journal.creations() == {}
    assert journal.destructions() == ()


def test_a_placement_that_others_use_is_never_recorded_as_ours(machine: Machine, journal: Journal) -> None:
    instances, driver = opened(journal)
    machine.foreign(0, "3g", 4)
    with pytest.raises(PlacementError, match="there is one already"):
        instances.create(GPU, PLACE)
    with pytest.raises(PlacementError, match="overlaps 3g@4"):
        instances.create(GPU, Placement(4, "2g"))
    assert journal.creations() == {}
    assert instances.end_all() == 0
    assert len(driver.instances()) == 1


def test_destroying_waits_for_an_agent_that_holds_the_instance(machine: Machine, journal: Journal) -> None:
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if sum(waited) >= 3.0:
            machine.agent(0, 4, 0.0)

    instances, driver = opened(journal, sleep=sleep)
    made = instances.create(GPU, PLACE)
    machine.agent(0, 4, 3600.0)
    instances.destroy(made.uuid)
    assert driver.instances() == ()
    assert sum(waited) == pytest.approx(3.0, abs=0.2)


def test_the_error_names_a_process_that_keeps_holding_the_instance(machine: Machine, journal: Journal) -> None:
    waited: list[float] = []
    instances, driver = opened(journal, sleep=waited.append)
    made = instances.create(GPU, PLACE)
    machine.hold(made.uuid, 1)
    with pytest.raises(InstanceInUseError, match=r"3g@4 of n/0 is held by process 1 \("):
        instances.destroy(made.uuid)
    assert len(waited) == IN_USE_TRIES - 1
    assert journal.instances() == driver.instances() == (made,)
    machine.let_go()
    instances.destroy(made.uuid)
    assert driver.instances() == ()


def test_destroying_waits_for_an_agent_that_comes_between_its_two_steps(machine: Machine, journal: Journal) -> None:
    instances, driver = opened(journal)
    made = instances.create(GPU, PLACE)
    machine.fault(DESTROY_GPU, 1, "fail", IN_USE)
    instances.destroy(made.uuid)
    assert driver.instances() == ()
    assert journal.instances() == ()


@pytest.mark.parametrize("undone", [False, True])
def test_a_creation_retries_in_use_errors_and_leaves_nothing_half_made(
    machine: Machine, journal: Journal, undone: bool
) -> None:
    instances, driver = opened(journal)
    machine.fault(CREATE_COMPUTE, 1, "fail", IN_USE)
    if not undone:
        machine.fault(DESTROY_GPU, 1, "fail", IN_USE)
    made = instances.create(GPU, PLACE)
    assert driver.instances() == journal.instances() == (made,)
    assert journal.creations() == {}


def test_a_half_made_instance_is_removed_before_the_next_creation(machine: Machine, journal: Journal) -> None:
    instances, driver = opened(journal)
    machine.foreign(0, "1g", 0, half=True)
    machine.fault(CREATE_COMPUTE, 1, "fail", UNKNOWN)
    machine.fault(DESTROY_GPU, 1, "fail", UNKNOWN)
    with pytest.raises(MigError, match="3g@4 was created only partly: the NVIDIA driver failed with error 999"):
        instances.create(GPU, PLACE)
    assert [i.half_made for i in driver.instances()] == [True, True]
    assert list(journal.creations()) == [(GPU, PLACE)]
    made = instances.create(GPU, Placement(4, "2g"))
    assert [i.placement for i in driver.instances()] == [Placement(0, "1g"), made.placement]
    assert journal.creations() == {}


def test_the_result_of_a_call_that_timed_out_is_removed_later(machine: Machine, journal: Journal) -> None:
    instances, driver = opened(journal, timeout_s=0.2)
    machine.fault(CREATE_COMPUTE, 1, "hang")
    with pytest.raises(MigTimeoutError, match=r"has not answered within 0\.2 s"):
        instances.create(GPU, PLACE)
    assert [i.half_made for i in driver.instances()] == [True]
    instances.recover()
    assert driver.instances() == ()
    assert journal.creations() == {}


def test_a_creation_that_takes_effect_after_its_timeout_is_ours(machine: Machine, journal: Journal) -> None:
    instances, driver = opened(journal, timeout_s=0.2)
    machine.fault(CREATE_GPU, 1, "hang")
    with pytest.raises(MigTimeoutError):
        instances.create(GPU, PLACE)
    beside = instances.create(GPU, Placement(0, "1g"))
    assert list(journal.creations()) == [(GPU, PLACE)]
    # The call that timed out takes effect now.
    machine.foreign(0, "3g", 4, half=True)
    instances.create(GPU, Placement(1, "1g"))
    assert [i.placement for i in driver.instances()] == [beside.placement, Placement(1, "1g")]
    assert journal.creations() == {}


@pytest.mark.parametrize("stage", [CreationStage.NOTED, CreationStage.PART])
def test_an_instance_that_others_make_where_our_creation_was_interrupted_is_theirs(
    machine: Machine, journal: Journal, stage: CreationStage
) -> None:
    instances, driver = opened(journal)
    # The process died before it made the GPU instance, and others took the placement before it was restarted.
    journal.begin_creation(GPU, PLACE)
    journal.reach(GPU, PLACE, stage)
    other = machine.foreign(0, "3g", 4)
    assert ours(driver.instances(), journal) == ()
    instances.recover()
    assert instances.end_all() == 0
    assert [i.uuid for i in driver.instances()] == [other]
    assert journal.creations() == {}
    with pytest.raises(PlacementError, match="there is one already"):
        instances.create(GPU, PLACE)


def test_after_an_attempt_that_left_nothing_an_instance_there_is_not_ours(machine: Machine, journal: Journal) -> None:
    other: list[str] = []

    def sleep(_: float) -> None:
        other.append(machine.foreign(0, "3g", 4))

    instances, driver = opened(journal, sleep=sleep)
    machine.fault(CREATE_COMPUTE, 1, "fail", IN_USE)
    with pytest.raises(PlacementError):
        instances.create(GPU, PLACE)
    assert [i.uuid for i in driver.instances()] == other
    assert journal.creations() == {}


def test_a_creation_leaves_no_instance_if_the_journal_cannot_be_written(
    machine: Machine, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    instances, driver = opened(journal)

    def full(*_: object) -> None:
        raise StateError("the disk is full")

    monkeypatch.setattr(journal, "keep_instance", full)
    with pytest.raises(StateError, match="full"):
        instances.create(GPU, PLACE)
    assert driver.instances() == ()


def test_instances_that_a_driver_reload_has_removed_are_forgotten(machine: Machine, journal: Journal) -> None:
    instances, driver = opened(journal)
    made = instances.create(GPU, PLACE)
    machine.unload()
    instances.destroy(made.uuid)
    assert journal.instances() == ()
    instances.create(GPU, PLACE)
    machine.unload()
    other = machine.foreign(0, "3g", 4, half=True)
    assert other == ""
    instances.recover()
    assert journal.instances() == ()
    assert len(driver.instances()) == 1


SAMPLE = transitions(4, seed=3)


@pytest.fixture(params=SAMPLE, ids=range(len(SAMPLE)))
def owner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Owner]:
    """A process whose layout is about to change on GPUs that it shares with others."""
    with Owner(tmp_path, request.param) as owner:
        yield owner


def test_a_change_makes_the_minimum_number_of_calls(owner: Owner) -> None:
    assert len(owner.changes()) == fewest_changes(owner.transition)


def test_a_change_is_completed_after_its_process_was_killed_at_any_call(owner: Owner) -> None:
    for nth in range(1, len(owner.changes()) + 1):
        for action in CRASHES:
            assert owner.killed_at("change", nth, action) == ""


def test_a_change_with_any_single_failure_is_retried_or_reported_and_loses_nothing(owner: Owner) -> None:
    for nth, name in enumerate(owner.changes(), 1):
        for code in plausible_codes(name):
            _, wrong = owner.failed_at("change", nth, code)
            assert wrong == ""


def test_an_instance_that_the_driver_misses_once_is_not_forgotten(tmp_path: Path) -> None:
    smallest = min(transitions(20, seed=21), key=lambda t: len((*t.foreign, *t.before, *t.after)))
    with Owner(tmp_path, smallest) as owner:
        for nth in range(1, len(owner.calls()) + 1):
            _, wrong = owner.failed_at("*", nth, NOT_FOUND)
            assert wrong == ""
