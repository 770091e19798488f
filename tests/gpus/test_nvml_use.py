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


def test_the_energy_of_whole_gpus_is_counted(machine_of: MakeMachine) -> None:
    machine = machine_of("H100-80GB", "A100-80GB")
    driver = NvmlMigDriver("n", {0: CATALOG["H100-80GB"], 1: CATALOG["A100-80GB"]})
    before = driver.energy()
    assert before.keys() == {GpuId("n", 0), GpuId("n", 1)}
    machine.consume(1, 10**6)
    after = driver.energy()
    assert after[GpuId("n", 0)] >= before[GpuId("n", 0)]
    assert after[GpuId("n", 1)] >= before[GpuId("n", 1)] + 10**6
    machine.unload()
    assert driver.energy()[GpuId("n", 1)] < 10**6


@pytest.mark.parametrize(("code", "found"), [(3, set()), (15, {1})], ids=["not supported", "a GPU that is lost"])
def test_an_energy_that_is_unknown_is_left_out(machine_of: MakeMachine, code: int, found: set[int]) -> None:
    machine = machine_of("H100-80GB", "H100-80GB")
    lost = code == 15
    call = "nvmlDeviceGetHandleByIndex_v2" if lost else "nvmlDeviceGetTotalEnergyConsumption"
    machine.fault(call, 1 if lost else 0, "fail", code)
    assert UseReader().energy([0, 1]).keys() == found


def test_a_driver_that_hangs_has_no_energy(machine_of: MakeMachine) -> None:
    machine_of("H100-80GB").fault("nvmlDeviceGetTotalEnergyConsumption", 1, "hang")
    assert UseReader(Calls(timeout_s=0.2)).energy([0]) == {}
