import pynvml
import pytest

from jigsaw_triton.api import machine
from jigsaw_triton.api.machine import emulation, visible_gpus
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId


def cluster(*models: str, driver: machine.Driver = "emulated") -> Cluster:
    gpus = tuple(Gpu(GpuId("n", index), CATALOG[model]) for index, model in enumerate(models))
    return Cluster(gpus, driver=driver)


def test_without_a_driver_no_gpu_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert visible_gpus() == ()


def test_gpus_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name, value in {
        "nvmlInit": lambda: calls.append("begin"),
        "nvmlShutdown": lambda: calls.append("end"),
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: f"GPU {handle}",
    }.items():
        monkeypatch.setattr(pynvml, name, value)
    assert visible_gpus() == ("GPU 0", "GPU 1")
    assert calls == ["begin", "end"]


def test_emulated_boards_are_named() -> None:
    assert "MIG on 2 A100-80GB, 1 cpu is emulated" in emulation(cluster("A100-80GB", "cpu", "A100-80GB"))
    assert emulation(cluster("A100-80GB", driver="nvml")) == ""
