from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.driver import open_driver
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, Placement

CLUSTER = Cluster(gpus=(Gpu(GpuId("a", 0), board("cpu")),))


def test_the_emulated_driver_keeps_its_state_in_the_state_directory(tmp_path: Path) -> None:
    made = open_driver(CLUSTER, tmp_path).create(GpuId("a", 0), Placement(4, "3g"))
    assert open_driver(CLUSTER, tmp_path).instances() == (made,)
    assert open_driver(CLUSTER, tmp_path / "other").instances() == ()


def test_the_driver_for_real_gpus_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nvml") as caught:
        open_driver(replace(CLUSTER, driver="nvml"), tmp_path)
    assert "driver: emulated" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
