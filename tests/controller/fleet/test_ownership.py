from collections.abc import Callable
from pathlib import Path

import pytest

from jigsaw_triton.controller.fleet.ownership import foreign_instances, ours
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.emulated import EmulatedMigDriver
from jigsaw_triton.gpus.model import CreationStage, Gpu, GpuId, MigInstance, Placement

GPU = GpuId("n", 0)


class Driver(EmulatedMigDriver):
    """Emulated driver that calls `then` after each listing of its instances."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, [Gpu(GPU, CATALOG["A100-80GB"])], holders_of=lambda _: ())
        self.then: Callable[[], None] = lambda: None

    def instances(self) -> tuple[MigInstance, ...]:
        found = super().instances()
        self.then()
        return found


def test_instances_that_the_journal_lacks_are_foreign(tmp_path: Path, journal: Journal) -> None:
    driver = Driver(tmp_path / "mig.json")
    kept, begun, other = (driver.create(GPU, Placement(start, "1g")) for start in range(3))
    journal.keep_instance(kept)
    journal.begin_creation(GPU, begun.placement)
    journal.reach(GPU, begun.placement, CreationStage.WHOLE)
    assert ours(driver.instances(), journal) == (kept, begun)
    assert foreign_instances(driver, journal) == (other,)


def test_instances_that_the_controller_creates_or_destroys_meanwhile_are_ours(tmp_path: Path, journal: Journal) -> None:
    driver = Driver(tmp_path / "mig.json")
    leaving, coming = (driver.create(GPU, Placement(start, "1g")) for start in range(2))
    journal.keep_instance(leaving)

    def change() -> None:
        journal.forget_instance(leaving.uuid)
        journal.keep_instance(coming)

    driver.then = change
    assert foreign_instances(driver, journal) == ()


@pytest.mark.parametrize(
    ("stage", "whole", "half_made"),
    [(CreationStage.NOTED, False, False), (CreationStage.PART, False, True), (CreationStage.WHOLE, True, True)],
)
def test_an_instance_that_an_unfinished_creation_may_have_left_is_ours(
    journal: Journal, stage: CreationStage, whole: bool, half_made: bool
) -> None:
    place = Placement(0, "1g")
    journal.begin_creation(GPU, place)
    journal.reach(GPU, place, stage)
    for uuid, mine in (("MIG-1", whole), ("GPU-1/3", half_made)):
        instance = MigInstance(GPU, place, uuid)
        assert ours((instance,), journal) == ((instance,) if mine else ())
