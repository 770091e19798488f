import pytest

from jigsaw_triton.controller.energy import EnergyMeter
from jigsaw_triton.gpus.model import GpuId

ONE, TWO = GpuId("n", 0), GpuId("n", 1)


def test_the_energy_of_the_gpus_in_use_is_divided_by_the_requests() -> None:
    meter = EnergyMeter()
    meter.add({ONE: 1000.0, TWO: 50.0}, {ONE}, 0.0, 0.0)
    assert (meter.watts, meter.joules_per_request) == (None, None)
    meter.add({ONE: 1400.0, TWO: 90.0}, {ONE}, 100.0, 2.0)
    assert (meter.watts, meter.joules_per_request) == (200.0, 4.0)
    meter.add({ONE: 1600.0, TWO: 190.0}, {ONE, TWO}, 100.0, 4.0)
    assert (meter.watts, meter.joules_per_request) == (175.0, 7.0)


def test_without_requests_there_is_power_only() -> None:
    meter = EnergyMeter()
    meter.add({ONE: 1000.0}, {ONE}, 5.0, 0.0)
    meter.add({ONE: 1100.0}, {ONE}, 5.0, 2.0)
    assert (meter.watts, meter.joules_per_request) == (50.0, None)


def test_only_the_last_seconds_count() -> None:
    meter = EnergyMeter()
    for turn in range(10):
        meter.add({ONE: 1000.0 * turn**2}, {ONE}, 10.0 * turn, 2.0 * turn)
    assert meter.watts == (81_000 - 16_000) / 10
    assert meter.joules_per_request == (81_000 - 16_000) / 50


@pytest.mark.parametrize("counters", [{}, {TWO: 300.0}, {ONE: 3.0}], ids=["no driver", "a lost GPU", "a new driver"])
def test_a_reading_that_lacks_energy_begins_anew(counters: dict[GpuId, float]) -> None:
    meter = EnergyMeter()
    meter.add({ONE: 1000.0}, {ONE}, 0.0, 0.0)
    meter.add({ONE: 1100.0}, {ONE}, 1.0, 2.0)
    meter.add(counters, {ONE}, 2.0, 4.0)
    assert (meter.watts, meter.joules_per_request) == (None, None)
    assert meter.counters == counters
    meter.add({ONE: 1300.0}, {ONE}, 3.0, 6.0)
    meter.add({ONE: 1420.0}, {ONE}, 5.0, 8.0)
    assert meter.joules_per_request == (60.0 if counters != {ONE: 3.0} else pytest.approx(1417 / 3))
