"""Reads the energy that GPUs have used from NVML, which counts it from Volta on, for whole GPUs only."""

from collections.abc import Iterable, Mapping

import pynvml

from jigsaw_triton.errors import MigTimeoutError
from jigsaw_triton.gpus.nvml_calls import Calls

_TIMEOUT_S = 2.0
"""Timeout in seconds, which is short because energy is only displayed."""


class EnergyReader:
    """Reads the counters of energy.

    Its calls are separate from those that change MIG, so neither waits for the other.

    Args:
        calls: Maker of the calls.
    """

    def __init__(self, calls: Calls | None = None) -> None:
        self._calls = calls or Calls(timeout_s=_TIMEOUT_S)

    def read(self, indexes: Iterable[int]) -> Mapping[int, float]:
        """Returns the joules by GPU since the driver was loaded, without GPUs that do not count. Blocks at most 2 s."""
        wanted = tuple(indexes)
        try:
            return self._calls.read("reading the energy of GPUs", lambda: _read(wanted))
        except (MigTimeoutError, pynvml.NVMLError):
            return {}


def _read(indexes: tuple[int, ...]) -> Mapping[int, float]:
    pynvml.nvmlInit()
    try:
        found = {index: _joules(index) for index in indexes}
    finally:
        pynvml.nvmlShutdown()
    return {index: joules for index, joules in found.items() if joules is not None}


def _joules(index: int) -> float | None:
    try:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(index))) / 1000
    except pynvml.NVMLError:
        return None
