from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.errors import InputError, MigError, StateError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.driver import open_driver
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, Placement
from tests.fakes.nvml.machine import Machine

CLUSTER = Cluster(gpus=(Gpu(GpuId("a", 0), board("cpu")),))


def test_the_emulated_driver_keeps_its_state_in_the_state_directory(tmp_path: Path) -> None:
    created = open_driver(CLUSTER, tmp_path).create(GpuId("a", 0), Placement(4, "3g"))
    assert open_driver(CLUSTER, tmp_path).instances() == (created,)
    assert open_driver(CLUSTER, tmp_path / "other").instances() == ()


def test_a_missing_driver_is_reported_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path / "gpus", ["A100-80GB"])
    machine.enter()
    monkeypatch.delenv("NVML_STANDIN")
    try:
        with pytest.raises(MigError, match="the NVIDIA driver is not loaded") as caught:
            open_driver(replace(CLUSTER, driver="nvml"), tmp_path)
    finally:
        machine.leave()
    assert "--driver emulated" in caught.value.hint


def test_real_gpus_must_match_the_cluster(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "gpus", ["A100-80GB", "A30-24GB"])
    machine.enter()
    try:
        for model, index, reason in [
            ("A30-24GB", 0, "this GPU is not of model A30-24GB: it is an NVIDIA A100-SXM4-80GB, which has other"),
            ("A100-40GB", 0, "whose 1g has 9728 MiB, not 4864"),
            ("A100-80GB", 2, "there is no such GPU; the driver has 2"),
        ]:
            cluster = Cluster((Gpu(GpuId("n", index), board(model)),), driver="nvml")
            with pytest.raises(InputError, match=reason) as caught:
                open_driver(cluster, tmp_path)
            assert caught.value.where == f"n/{index}"
        right = Cluster((Gpu(GpuId("n", 1), board("A30-24GB")),), driver="nvml")
        created = open_driver(right, tmp_path).create(GpuId("n", 1), Placement(0, "4g"))
        assert open_driver(Cluster((), driver="nvml"), tmp_path, node="n").instances() == (created,)
    finally:
        machine.leave()
    assert not (tmp_path / "mig.json").exists()


def test_the_nvml_driver_refuses_gpus_of_several_nodes(tmp_path: Path) -> None:
    gpus = tuple(Gpu(GpuId(node, 0), board("A30-24GB")) for node in ("a", "b"))
    with pytest.raises(InputError, match=r"one node, but the cluster has 2 \(a, b\)"):
        open_driver(Cluster(gpus, driver="nvml"), tmp_path)


def test_gpus_that_another_tool_manages_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path / "gpus", ["A30-24GB"])
    machine.enter()
    monkeypatch.setattr("jigsaw_triton.gpus.driver.running_owners", lambda: ("NVIDIA's DRA driver",))
    try:
        cluster = Cluster((Gpu(GpuId("n", 0), board("A30-24GB")),), driver="nvml")
        with pytest.raises(StateError, match="NVIDIA's DRA driver also changes MIG on this machine; let only one"):
            open_driver(cluster, tmp_path)
        # A cluster without GPUs, as `down` uses it, can still destroy our instances.
        assert open_driver(Cluster((), driver="nvml"), tmp_path).instances() == ()
    finally:
        machine.leave()
    assert open_driver(CLUSTER, tmp_path).instances() == ()
