"""Reads from NVML how MIG instances are used, and the energy of GPUs.

NVML reports the memory of MIG instances on every board, but no utilisation rates. From Hopper on it offers GPU
performance metrics (GPM), which are differences between two samples. It counts the energy of a whole GPU only.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import pynvml

from jigsaw_triton.errors import MigTimeoutError
from jigsaw_triton.gpus.model import DeviceUse
from jigsaw_triton.gpus.nvml_calls import Calls

_TIMEOUT_S = 2.0
"""Timeout in seconds, which is short because what is read is only displayed."""


class UseReader:
    """Reads the utilisation of instances since the previous reading.

    Its calls are separate from those that change MIG, so neither waits for the other.

    Args:
        calls: Maker of the calls.
    """

    def __init__(self, calls: Calls | None = None) -> None:
        self._calls = calls or Calls(timeout_s=_TIMEOUT_S)
        self._samples: dict[str, Any] = {}

    def read(self, uuids: Iterable[str]) -> Mapping[str, DeviceUse]:
        """Returns the utilisation by UUID, without instances that the driver knows nothing about. Blocks at most 2 s.

        The first reading of an instance has no utilisation of its multiprocessors yet.
        """
        wanted = tuple(uuids)
        try:
            return self._calls.read("reading how busy instances are", lambda: self._read(wanted))
        except (MigTimeoutError, pynvml.NVMLError):
            return {}

    def energy(self, indexes: Iterable[int]) -> Mapping[int, float]:
        """Returns the energy in joules of GPUs by their index, as `MigDriver.energy` does. Blocks at most 2 s."""
        wanted = tuple(indexes)
        try:
            return self._calls.read("reading the energy of GPUs", lambda: _energy(wanted))
        except (MigTimeoutError, pynvml.NVMLError):
            return {}

    def _read(self, uuids: tuple[str, ...]) -> Mapping[str, DeviceUse]:
        pynvml.nvmlInit()
        try:
            self._samples = {uuid: sample for uuid, sample in self._samples.items() if uuid in uuids}
            found = {uuid: self._use(uuid) for uuid in uuids}
        finally:
            pynvml.nvmlShutdown()
        return {uuid: use for uuid, use in found.items() if use is not None}

    def _use(self, uuid: str) -> DeviceUse | None:
        try:
            device = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            memory = pynvml.nvmlDeviceGetMemoryInfo(device)
        except pynvml.NVMLError:
            return None
        return DeviceUse(memory.used // 2**20, memory.total // 2**20, self._busy(uuid, device))

    def _busy(self, uuid: str, device: Any) -> float | None:
        """Returns the utilisation of the multiprocessors since the last sample, from 0 to 1; None if unknown."""
        before = self._samples.pop(uuid, None)
        try:
            self._samples[uuid] = now = _sample(uuid, device)
            return None if before is None else _between(before, now)
        except pynvml.NVMLError:
            return None
        finally:
            if before is not None:
                pynvml.nvmlGpmSampleFree(before)


def _energy(indexes: tuple[int, ...]) -> Mapping[int, float]:
    found = {}
    pynvml.nvmlInit()
    try:
        for index in indexes:
            # Boards before Volta do not count their energy, and a GPU may be lost.
            with suppress(pynvml.NVMLError):
                device = pynvml.nvmlDeviceGetHandleByIndex(index)
                found[index] = pynvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1000
    finally:
        pynvml.nvmlShutdown()
    return found


def _sample(uuid: str, device: Any) -> Any:
    sample = pynvml.nvmlGpmSampleAlloc()
    try:
        if uuid.startswith("MIG-"):
            gpu = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device)
            return pynvml.nvmlGpmMigSampleGet(gpu, pynvml.nvmlDeviceGetGpuInstanceId(device), sample)
        return pynvml.nvmlGpmSampleGet(device, sample)
    except pynvml.NVMLError:
        pynvml.nvmlGpmSampleFree(sample)
        raise


def _between(before: Any, now: Any) -> float | None:
    query = pynvml.c_nvmlGpmMetricsGet_t()
    query.version = pynvml.NVML_GPM_METRICS_GET_VERSION
    query.numMetrics = 1
    query.sample1, query.sample2 = before, now
    query.metrics[0].metricId = pynvml.NVML_GPM_METRIC_SM_UTIL
    pynvml.nvmlGpmMetricsGet(query)
    metric = query.metrics[0]
    return float(metric.value) / 100 if metric.nvmlReturn == pynvml.NVML_SUCCESS else None
