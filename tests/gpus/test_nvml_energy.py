import pytest

from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import GpuId
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from jigsaw_triton.gpus.nvml_calls import Calls
from jigsaw_triton.gpus.nvml_energy import EnergyReader
from tests.gpus.conftest import MakeMachine


def test_gpus_count_their_energy_in_joules(machine_of: MakeMachine) -> None:
    machine_of("A100-80GB")
    driver = NvmlMigDriver("n", {0: CATALOG["A100-80GB"]})
    assert driver.energy([GpuId("n", 0), GpuId("n", 9)]) == {GpuId("n", 0): 1000.0}


@pytest.mark.parametrize("action", ["fail", "hang"])
def test_an_unavailable_reading_is_not_an_error(machine_of: MakeMachine, action: str) -> None:
    machine = machine_of("H100-80GB")
    reader = EnergyReader(Calls(timeout_s=0.2))
    # The type checker sees the test's parameter as an arbitrary string.
    machine.fault("nvmlDeviceGetTotalEnergyConsumption", 1, action, 999)  # type: ignore[arg-type]
    assert reader.read([0]) == {}
    assert reader.read([0]) == {0: 1000.0}
