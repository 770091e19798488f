"""Behaviour of the NVML driver beyond the common contract, through pynvml's own code on the simulated NVML library."""

import os
from dataclasses import replace

import pynvml
import pytest

from jigsaw_triton.errors import (
    GpuLostError,
    InstanceInUseError,
    InstanceNotFoundError,
    MigError,
    MigTimeoutError,
    PlacementError,
)
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.layouts import maximal_layouts
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, MigInstance, Placement
from jigsaw_triton.gpus.nvml import NvmlMigDriver
from jigsaw_triton.gpus.nvml_calls import Calls
from jigsaw_triton.gpus.nvml_library import Nvml
from jigsaw_triton.gpus.reported import ReportedGpu
from tests.fakes.nvml.machine import Machine
from tests.gpus.conftest import MakeMachine

GPU = GpuId("n", 0)
BOARDS = sorted(name for name, board in CATALOG.items() if board.nvml_names)


class Recorder:
    """Recorder that keeps all calls in memory."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.errors: list[str] = []

    def begin(self, call: str) -> int:
        self.calls.append(call)
        return len(self.calls) - 1

    def end(self, row: int, error: str) -> None:
        assert row == len(self.errors)
        self.errors.append(error)


def driver_of(machine: Machine, *, timeout_s: float = 30.0, record: Recorder | None = None) -> NvmlMigDriver:
    boards = {index: CATALOG[name] for index, name in enumerate(machine.models) if name in CATALOG}
    return NvmlMigDriver("n", boards, calls=Calls(timeout_s=timeout_s, record=record))


@pytest.mark.parametrize("name", BOARDS)
def test_every_slice_kind_of_every_board_can_be_created(machine_of: MakeMachine, name: str) -> None:
    driver = driver_of(machine_of(name))
    board = CATALOG[name]
    for kind in [*board.profiles, *(f"{kind}+me" for kind in board.media_profiles)]:
        profile = board.profile(kind)
        assert profile is not None
        created = driver.create(GPU, Placement(profile.starts[-1], kind))
        assert driver.instances() == (created,)
        driver.destroy(created.uuid)
    for layout in maximal_layouts(board)[:3]:
        all_created = tuple(driver.create(GPU, placement) for placement in layout)
        assert driver.instances() == all_created
        for each in all_created:
            driver.destroy(each.uuid)


def test_every_change_is_recorded_before_and_after(machine_of: MakeMachine) -> None:
    machine, recorder = machine_of("A100-80GB"), Recorder()
    driver = driver_of(machine, record=recorder)
    created = driver.create(GPU, Placement(4, "3g"))
    machine.fault("nvmlGpuInstanceDestroy", 1, "fail", 999)
    with pytest.raises(MigError, match="failed with error 999"):
        driver.destroy(created.uuid)
    assert recorder.calls == [
        "nvmlDeviceCreateGpuInstanceWithPlacement(GPU 0, profile 9, 4:4)",
        "nvmlGpuInstanceCreateComputeInstance(GPU 0 3g@4, 42 multiprocessors)",
        "nvmlComputeInstanceDestroy(GPU 0 3g@4)",
        "nvmlGpuInstanceDestroy(GPU 0 3g@4)",
    ]
    assert recorder.errors == ["", "", "", "Unknown Error"]


def test_a_half_made_instance_is_reported_and_can_be_destroyed(machine_of: MakeMachine) -> None:
    machine = machine_of("H100-80GB")
    driver = driver_of(machine)
    assert machine.foreign(0, "1gx2", 2, half=True) == ""
    (half,) = driver.instances()
    assert half.half_made
    assert (half.gpu, half.placement) == (GPU, Placement(2, "1gx2"))
    driver.destroy(half.uuid)
    assert driver.instances() == ()
    with pytest.raises(InstanceNotFoundError):
        driver.destroy(half.uuid)


@pytest.mark.parametrize(
    "call", ["nvmlGpuInstanceCreateComputeInstance", "nvmlComputeInstanceGetInfo_v2", "nvmlDeviceGetUUID"]
)
def test_a_creation_that_fails_halfway_is_undone(machine_of: MakeMachine, call: str) -> None:
    machine = machine_of("A100-80GB")
    driver = driver_of(machine)
    # The UUID of the GPU is read before anything is created, and that of the instance after it.
    machine.fault(call, 2 if call == "nvmlDeviceGetUUID" else 1, "fail", 999)
    with pytest.raises(MigError, match="3g@4 was created only partly") as caught:
        driver.create(GPU, Placement(4, "3g"))
    assert not isinstance(caught.value, PlacementError)
    assert driver.instances() == ()


def test_a_refusal_by_the_driver_is_explained(machine_of: MakeMachine) -> None:
    machine = machine_of("A100-80GB")
    driver = driver_of(machine)
    machine.foreign(0, "2g", 0)
    machine.fault("nvmlDeviceCreateGpuInstanceWithPlacement", 1, "fail", 23)
    with pytest.raises(PlacementError, match=r"has no room for it, although it reports 2g@0; another tool"):
        driver.create(GPU, Placement(4, "3g"))


def test_a_gpu_with_mig_off_is_one_whole_slice_and_the_error_has_the_remedy(machine_of: MakeMachine) -> None:
    machine = machine_of("A100-80GB", mig=False)
    driver = driver_of(machine)
    with pytest.raises(PlacementError, match=r"one whole 7g@0, because MIG is off; `jigsaw-triton mig enable 0`"):
        driver.create(GPU, Placement(0, "3g"))
    whole = driver.create(GPU, Placement(0, "7g"))
    assert whole.uuid.startswith("GPU-")
    assert not whole.half_made
    assert driver.instances() == ()
    machine.hold(whole.uuid, os.getpid())
    with pytest.raises(InstanceInUseError, match=rf"n/0 is held by process {os.getpid()} \("):
        driver.create(GPU, Placement(0, "7g"))
    driver.destroy(whole.uuid)
    assert machine.changes() == []


def test_a_gpu_without_mig_support_is_reported_without_instances(machine_of: MakeMachine) -> None:
    driver = driver_of(machine_of("L4", "A30-24GB"))
    assert [(gpu.name, gpu.mode is None) for gpu in driver.gpus()] == [("NVIDIA L4", True), ("NVIDIA A30", False)]
    created = driver.create(GpuId("n", 1), Placement(0, "4g"))
    assert driver.instances() == (created,)


def test_missing_rights_are_reported_with_the_remedy(machine_of: MakeMachine) -> None:
    machine = machine_of("A100-80GB")
    driver = driver_of(machine)
    machine.deny("changes")
    with pytest.raises(MigError, match="may not read or change MIG here; run as root, with CAP_SYS_ADMIN"):
        driver.create(GPU, Placement(0, "1g"))
    assert driver.instances() == ()
    machine.deny("all")
    with pytest.raises(MigError, match="CAP_SYS_ADMIN"):
        driver.instances()


def test_a_reloaded_driver_is_usable_again(machine_of: MakeMachine) -> None:
    machine = machine_of("A100-80GB")
    driver = driver_of(machine)
    driver.create(GPU, Placement(0, "1g"))
    machine.unload(load_again=False)
    with pytest.raises(MigError, match="not loaded"):
        driver.instances()
    machine.unload()
    assert driver.instances() == ()
    driver.create(GPU, Placement(0, "1g"))


@pytest.mark.parametrize(
    ("call", "where"), [("nvmlDeviceGetCount_v2", "counting the GPUs"), ("nvmlDeviceGetGpuInstances", "reading n/0")]
)
def test_a_call_that_hangs_times_out_and_the_next_call_succeeds(machine_of: MakeMachine, call: str, where: str) -> None:
    machine = machine_of("A100-80GB")
    driver = driver_of(machine, timeout_s=0.2)
    machine.fault(call, 1, "hang")
    with pytest.raises(MigTimeoutError, match=r"not answered within 0\.2 s") as caught:
        driver.instances()
    assert caught.value.where == where
    assert driver.instances() == ()


def test_a_lost_gpu_is_named(machine_of: MakeMachine) -> None:
    machine = machine_of("A100-80GB", "A100-80GB")
    machine.fault("nvmlDeviceGetMigMode", 2, "fail", 15)
    with pytest.raises(GpuLostError, match="the GPU is lost") as caught:
        driver_of(machine).gpus()
    assert caught.value.where == "n/1"


def test_an_instance_missing_from_one_listing_is_not_reported_as_gone(machine_of: MakeMachine) -> None:
    machine = machine_of("A100-80GB")
    driver = driver_of(machine)
    created = driver.create(GPU, Placement(0, "1g"))
    machine.fault("nvmlGpuInstanceGetInfo", 1, "fail", 6)
    with pytest.raises(MigError, match="knows this instance but does not list it") as caught:
        driver.destroy(created.uuid)
    assert not isinstance(caught.value, InstanceNotFoundError)
    driver.destroy(created.uuid)


def test_a_new_instance_of_another_process_is_not_mistaken_for_the_destroyed_one(
    machine_of: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = driver_of(machine_of("A100-80GB"))
    created = driver.create(GPU, Placement(0, "1g"))
    (gpu,) = driver.gpus()
    # The other process's instance has the same number and is half-made.
    others = replace(gpu, instances=(replace(gpu.instances[0], parts=(), whole=""),))
    reads = iter([gpu, others])
    with monkeypatch.context() as patch:
        patch.setattr(driver, "_read", lambda _: next(reads))
        driver.destroy(created.uuid)
    assert driver.instances() == ()


def test_a_destruction_without_effect_is_reported(machine_of: MakeMachine) -> None:
    machine = machine_of("A100-80GB")
    driver = driver_of(machine)
    created = driver.create(GPU, Placement(0, "1g"))
    machine.fault("nvmlGpuInstanceDestroy", 1, "fail", 6)
    with pytest.raises(MigError, match="still reports it"):
        driver.destroy(created.uuid)
    (half,) = driver.instances()
    assert half == MigInstance(GPU, created.placement, half.uuid)
    driver.destroy(half.uuid)


class Lossy(Nvml):
    """NVML on a machine whose first GPU has fallen off the bus."""

    def gpu(self, index: int) -> ReportedGpu:
        if index == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return super().gpu(index)


def test_a_lost_gpu_does_not_hide_the_others(machine_of: MakeMachine) -> None:
    machine = machine_of("A100-80GB", "A100-80GB")
    other = GpuId("n", 1)
    created = driver_of(machine).create(other, Placement(0, "1g"))
    boards = {index: CATALOG["A100-80GB"] for index in (0, 1)}
    driver = NvmlMigDriver("n", boards, nvml=Lossy())
    driver.check()
    assert driver.instances() == (created,)
    cluster = Cluster(tuple(Gpu(gpu, CATALOG["A100-80GB"]) for gpu in (GPU, other)))
    assert [gpu.id for gpu in driver.survey(cluster).gpus] == [other]
    with pytest.raises(GpuLostError, match="the GPU is lost"):
        driver.create(GPU, Placement(0, "1g"))
    second = driver.create(other, Placement(1, "1g"))
    assert driver.instances() == (created, second)
