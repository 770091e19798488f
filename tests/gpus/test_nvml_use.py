import os

import pytest

from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import DeviceUse, GpuId, Placement
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from jigsaw_triton.gpus.nvml_calls import Calls
from jigsaw_triton.gpus.nvml_use import UseReader
from tests.gpus.conftest import MakeMachine


def created(name: str, kind: str) -> tuple[NvmlMigDriver, str]:
    driver = NvmlMigDriver("n", {0: CATALOG[name]})
    return driver, driver.create(GpuId("n", 0), Placement(0, kind)).uuid


def test_hopper_reports_the_utilisation_of_multiprocessors_between_two_readings(machine_of: MakeMachine) -> None:
    machine = machine_of("H100-80GB")
    driver, uuid = created("H100-80GB", "3g")
    assert driver.use([uuid]) == {uuid: DeviceUse(0, 40448, None)}
    machine.hold(uuid, os.getpid())
    assert driver.use([uuid]) == {uuid: DeviceUse(512, 40448, 0.25)}
    machine.let_go()
    assert driver.use([uuid]) == {uuid: DeviceUse(0, 40448, 0.0)}


def test_ampere_reports_memory_only(machine_of: MakeMachine) -> None:
    machine = machine_of("A100-80GB")
    driver, uuid = created("A100-80GB", "1g")
    machine.hold(uuid, os.getpid())
    for _ in range(2):
        assert driver.use([uuid]) == {uuid: DeviceUse(512, 9728, None)}


def test_a_gpu_without_mig_is_reported_as_a_whole(machine_of: MakeMachine) -> None:
    machine_of("H100-80GB", mig=False)
    driver, uuid = created("H100-80GB", "7g")
    driver.use([uuid])
    assert driver.use([uuid, "MIG-gone"]) == {uuid: DeviceUse(0, 81152, 0.0)}


@pytest.mark.parametrize("action", ["fail", "hang"])
def test_an_unavailable_reading_is_not_an_error(machine_of: MakeMachine, action: str) -> None:
    machine = machine_of("H100-80GB")
    _, uuid = created("H100-80GB", "1g")
    reader = UseReader(Calls(timeout_s=0.2))
    call = "nvmlDeviceGetMemoryInfo" if action == "fail" else "nvmlGpmMigSampleGet"
    # The type checker sees the test's parameter as an arbitrary string.
    machine.fault(call, 1, action, 999)  # type: ignore[arg-type]
    assert reader.read([uuid]) == {}
    assert reader.read([uuid]) == {uuid: DeviceUse(0, 9984, None)}
