"""MIG instances of others on the GPUs of a deployment."""

from pathlib import Path

import pytest

from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.driver import STATE_FILE
from jigsaw_triton.gpus.emulated import EmulatedMigDriver
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import Gpu, GpuId, Placement
from tests.e2e.app import write_application
from tests.e2e.clients import Client, expected
from tests.e2e.system import System

pytestmark = pytest.mark.e2e


def test_instances_of_others_are_planned_around_and_outlive_the_deployment(system: System, tmp_path: Path) -> None:
    gpu = Gpu(GpuId("local", 0), CATALOG["cpu"])
    driver = EmulatedMigDriver(system.state / STATE_FILE, [gpu])
    first = driver.create(gpu.id, Placement(1, "1g"))
    app = write_application(tmp_path / "app", slices={"square": ["3g"]})
    asked = (app, "--gpus", "1xcpu", "--demand", 5)
    status = system.deploy(*asked)
    assert status["plan"]["slices_total"] == 6
    assert {w["slice"]: w["start"] for w in status["workers"]}["3g"] == 4
    # The next plan finds instances that were created later.
    used = [instance.placement for instance in driver.instances()]
    second = driver.create(gpu.id, next(p for p in map(_1g, range(4)) if fits(gpu.board, [*used, p]) is None))
    status = system.deploy(*asked[:-1], 6)
    assert status["plan"]["slices_total"] == 5
    ours = {(w["slice"], w["start"]) for w in status["workers"]}
    assert ours.isdisjoint({(i.placement.slice, i.placement.start) for i in (first, second)})
    with Client(system, "grpc") as client:
        assert client.squares([2, 3]) == expected([2, 3])
    assert system.run("down").code == 0
    assert set(driver.instances()) == {first, second}
    for instance in (first, second):
        driver.destroy(instance.uuid)


def _1g(start: int) -> Placement:
    return Placement(start, "1g")
